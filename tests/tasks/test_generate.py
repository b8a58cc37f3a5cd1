"""Datasets from a frozen specification: shard by shard, in any order, the same bytes; and the seal."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config.base import filled
from pipeline.config.spec_files import write_spec
from pipeline.config.tasks import Copy as Config
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import ChangedCodeError, CorruptFileError, ForeignSpecError, MissingFileError, UserError
from pipeline.storage.loader import open_rows
from pipeline.storage.manifest import verify
from pipeline.tasks import generate as generating
from pipeline.tasks.generate import generate_shard, seal_dataset

TASK: dict[str, Any] = {"symbols": 3, "delay": {"log_uniform": (1, 9)}}


def describe(folder: Path, **changes: Any) -> Path:
    """Write a frozen specification of ten rows in three shards."""
    fields = {"id": "copy-12345678", "task": filled(Config(**TASK)), "split": "train", "rows": 10, "shards": 3, **changes}
    write_spec(folder / "dataset.yaml", fields)
    return folder


def generate(folder: Path, **changes: Any) -> Path:
    """All shards, sealed."""
    describe(folder, **changes)
    for index in range(changes.get("shards", 3)):
        generate_shard(folder, index)
    seal_dataset(folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def test_a_dataset_has_its_rows_manifest_and_card(tmp_path: Path) -> None:
    folder = generate(tmp_path)
    visible = sorted(name for name in digests(folder) if not name.startswith("."))
    assert visible == ["00000.parquet", "00001.parquet", "00002.parquet", "card.md", "dataset.yaml", "manifest.json"]
    manifest = verify(folder)
    tables = [pq.read_table(folder / name) for name in manifest["files"]]
    assert [len(table) for table in tables] == [4, 3, 3]
    assert manifest["rows"] == 10 and manifest["dataset"] == "copy-12345678"
    assert manifest["tokens"] == sum(len(tokens) for table in tables for tokens in table.column("tokens").to_pylist())
    assert len(open_rows(folder)) == 10


def test_the_order_and_the_number_of_workers_change_nothing(tmp_path: Path) -> None:
    expected = digests(generate(tmp_path / "one", rows=500, shards=6))
    backwards = describe(tmp_path / "two", rows=500, shards=6)
    for index in reversed(range(6)):
        generate_shard(backwards, index)
    seal_dataset(backwards)
    crowded = describe(tmp_path / "three", rows=500, shards=6)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda index: generate_shard(crowded, index), range(6)))
    seal_dataset(crowded)
    assert digests(backwards) == expected == digests(crowded)


def test_shards_of_two_codes_are_not_sealed_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = describe(tmp_path)
    for index in range(3):
        generate_shard(folder, index)
    monkeypatch.setattr(generating, "code_of", lambda task: {f"task {task.name}": {"copy.py": "1"}})
    generate_shard(folder, 0)
    with pytest.raises(ChangedCodeError, match=r"00001.parquet: made by other code of task copy, changed since; delete it and run again"):
        seal_dataset(folder)
    assert not (folder / "manifest.json").exists()
    seal_dataset(folder, allow_changed_code=True)
    assert verify(folder)["code"] == {"task copy": {"copy.py": "mixed"}}


def test_another_process_makes_the_same_shard_without_pandas_or_torch(tmp_path: Path) -> None:
    expected = digests(generate(tmp_path / "here"))["00001.parquet"]
    describe(tmp_path / "there")
    code = (
        "import sys, pathlib\n"
        "from pipeline.tasks.generate import generate_shard\n"
        "generate_shard(pathlib.Path(sys.argv[1]), 1)\n"
        "print(sorted({'pandas', 'torch', 'matplotlib'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "there"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert digests(tmp_path / "there")["00001.parquet"] == expected


def test_shards_and_datasets_differ(tmp_path: Path) -> None:
    one, two = generate(tmp_path / "one", rows=12), generate(tmp_path / "two", rows=12, id="copy-87654321")
    rows = [
        tuple(row)
        for folder in (one, two)
        for name in verify(folder)["files"]
        for row in pq.read_table(folder / name)["target"].to_pylist()
    ]
    assert len(set(rows)) > 20


def test_golden_content(tmp_path: Path) -> None:
    """The decoded rows, since the bytes of a file depend on pyarrow's version; a change here makes every dataset on disk a different one."""
    block = open_rows(generate(tmp_path, rows=100)).gather(np.arange(100))
    content = hashlib.sha256(block.tokens.astype("<u2").tobytes() + block.roles.tobytes() + np.asarray(block.target, "<u2").tobytes())
    assert content.hexdigest()[:16] == "b44773c88a577459"


def test_a_shard_that_the_dataset_does_not_have(tmp_path: Path) -> None:
    describe(tmp_path)
    for index in (-1, 3):
        with pytest.raises(UserError, match=rf"dataset\.yaml: no shard {index}; expected 0\.\.2"):
            generate_shard(tmp_path, index)


def test_more_shards_than_rows(tmp_path: Path) -> None:
    assert len(open_rows(generate(tmp_path, rows=2, shards=4))) == 2


def test_sealing_needs_every_shard_and_its_own(tmp_path: Path) -> None:
    folder = generate(tmp_path / "one")
    second = folder / "00001.parquet"
    content = second.read_bytes()
    cases: list[tuple[bytes | None, type[UserError], str]] = [
        (None, MissingFileError, "no such file; expected shard 1 of 3; run again to regenerate it"),
        (content[:-3], CorruptFileError, "invalid Parquet"),
        ((folder / "00002.parquet").read_bytes(), CorruptFileError, "not shard 1 of copy-12345678; delete it and run again"),
        ((generate(tmp_path / "two", id="x") / "00001.parquet").read_bytes(), CorruptFileError, "not shard 1 of copy-12345678"),
        ((generate(tmp_path / "three", rows=30) / "00001.parquet").read_bytes(), CorruptFileError, "10 rows, expected 3; delete it"),
    ]
    for damaged, error, message in cases:
        (folder / "manifest.json").unlink(missing_ok=True)
        second.unlink(missing_ok=True)
        if damaged is not None:
            second.write_bytes(damaged)
        with pytest.raises(error, match=rf"00001\.parquet: {message}"):
            seal_dataset(folder)
        assert not (folder / "manifest.json").exists()


def test_specifications_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"dataset\.yaml: no such file"):
        generate_shard(tmp_path, 0)
    task = filled(Config(**TASK))
    cases: list[tuple[dict[str, Any], type[UserError], str]] = [
        ({"rows": "many"}, UserError, "rows: got 'many', expected a whole number; expected what 'pipeline describe dataset' writes"),
        ({"split": "dev"}, UserError, "split: input should be 'train', 'validation' or 'test'; expected"),
        ({"shards": 0}, UserError, "shards: got 0, expected at least 1; expected"),
        ({"id": "../../x"}, UserError, "id: got the name '../../x'; expected letters, digits, - and _"),
        ({"task": {**task, "version": 99}}, ForeignSpecError, "task copy: written for version 99"),
    ]
    for changes, error, message in cases:
        describe(tmp_path, **changes)
        with pytest.raises(error, match=re.escape(message)):
            generate_shard(tmp_path, 0)


def test_the_card_tells_what_the_rows_are(tmp_path: Path) -> None:
    folder = generate(tmp_path, split="test")
    card = (folder / "card.md").read_text()
    files = verify(folder)["files"]
    for text in (
        "Symbols, then a delay, then the same symbols again from memory.",
        "| split | test (buckets 0..9 of 100 of a hash of each row) |",
        "| rows | 10 |",
        "except rows of fewer than 4 symbols",
        "log_uniform: [1, 9]",
        "| delay | tokens before the answer",
        *(f"| {name} | {entry['bytes']:,} | `{entry['sha256']}` |" for name, entry in files.items()),
    ):
        assert text in card


def test_the_card_loads_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "copy-12345678")
    card = (tmp_path / "copy-12345678" / "card.md").read_text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert len(names["table"]) == 10
