"""Dataset cards: the page beside the shards that tells a reader what they hold."""

from __future__ import annotations

from typing import NamedTuple


class CardFields(NamedTuple):
    """What a card shows."""

    name: str
    about: str
    source: str
    specification: str
    split: str
    overlap: str
    rows: int
    tokens: int | None  # None: rows are episodes
    files: dict[str, tuple[int, str]]  # name: bytes, SHA-256
    columns: dict[str, str]


CARD = """---
license: cc0-1.0
---

# {name}

{about}

Source: {source}

## Contents

| | |
|---|---|
| split | {split} |
| rows | {rows:,} |
{sizes}

{overlap}

The rows are made by a program from a key (SHA-256 of this dataset's name and the shard's number) and hold nothing of anyone's. They are
given to the public domain under CC0 1.0; the program is under Apache-2.0.

## Specification

```yaml
{specification}
```

## Columns

| column | meaning |
|---|---|
{columns}

## Loading

```python
import glob, pyarrow.dataset
shards = sorted(glob.glob("{name}/*.parquet"))
table = pyarrow.dataset.dataset(shards, format="parquet").to_table()
```

## Files

| file | bytes | SHA-256 |
|---|---|---|
{files}
"""


def _sizes(facts: CardFields, size: int) -> str:
    """Tokens and bytes; rows that are episodes have no tokens."""
    if facts.tokens is None:
        return f"| bytes | {size:,} |\n| bytes per row | {size / max(facts.rows, 1):.3f} |"
    return f"| tokens | {facts.tokens:,} |\n| bytes | {size:,} |\n| bytes per token | {size / max(facts.tokens, 1):.3f} |"


def card(facts: CardFields) -> str:
    """The card as Markdown; the same facts give the same text."""
    total = sum(size for size, _ in facts.files.values())
    return CARD.format(
        name=facts.name,
        about=facts.about,
        source=facts.source or "this project",
        split=facts.split,
        rows=facts.rows,
        sizes=_sizes(facts, total),
        overlap=facts.overlap,
        specification=facts.specification.strip(),
        columns="\n".join(f"| {name} | {meaning} |" for name, meaning in facts.columns.items()),
        files="\n".join(f"| {name} | {size:,} | `{sha256}` |" for name, (size, sha256) in facts.files.items()),
    )
