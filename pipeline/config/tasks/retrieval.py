"""Tasks of the retrieval family: what a network finds again in its own context, alone, by thinking aloud, or by searching it.

Code: `pipeline/tasks/`, one file each; the tokens are in `vocabulary.py` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipeline.config.tasks.base import Task

NODES = 16
"""Special tokens; the name v is the token NODES + v."""


class RetrievalTask(Task):
    """What the tasks of the family share: their tokens, and that a network may be left to write a row's trace by itself.

    `chance` is that of the answer, the row's last token; `floor` is over all scored positions, those of the trace included.
    """

    decoded: ClassVar[bool] = True

    names: int = Field(default=64, ge=2, le=60_000, description="different names of nodes or symbols, the tokens from 16 on")

    @property
    def vocabulary(self) -> int:
        """Special tokens, then names."""
        return NODES + self.names

    @property
    def classes(self) -> int:
        """The next token may be any."""
        return self.vocabulary


NAME = "name"
"""The kind of all names, where kinds of tokens are counted."""


def memoryless(follows: Mapping[tuple[str, str], float], names: int, others: Mapping[str, int] | None = None) -> float:
    """Nats per scored position of the best predictor that sees one token at a time.

    `follows[one, other]`: how many scored tokens of kind `other` follow one of kind `one` in a typical row. A kind is one special token, or
    all names (NAME): which of them comes is as good as uniform, whatever the token before. So it is with the kinds in `others`, which have
    so many tokens.
    """
    before: dict[str, float] = {}
    for (one, _), count in follows.items():
        before[one] = before.get(one, 0) + count
    choice = sum(count * math.log(before[one] / count) for (one, _), count in follows.items() if count)
    sizes = {NAME: names, **(others or {})}
    which = sum(count * math.log(sizes.get(other, 1)) for (_, other), count in follows.items())
    return (choice + which) / sum(before.values())
