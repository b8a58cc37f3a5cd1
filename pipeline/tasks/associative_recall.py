"""Associative recall: pairs of key and value, then one of the keys again; the answer is its value.

With an alphabet of 3 (values a, b, c; the names behind them, here 3 to 9, are keys) and `length: 3`:

    direct   BOS 7 b 4 a 9 b QUERY 4 SEP | a
    cot      BOS 7 b 4 a 9 b QUERY 4 SEP | 7 b 4 a EOS a          every pair up to the key's
    icr      BOS 7 b 4 a 9 b QUERY 4 SEP | SEARCH 4 END *a EOS a  *: the result of the search, which the network does not write

Keys are drawn without replacement from all there are, values are uniform and independent, every pair is as likely to be asked for. A
query is one key; the result is its value, FAIL where the row does not have it.

Memory: whatever reads the row once and forgets the value of one key answers one of the questions wrong: at least length x log2(alphabet)
bits are needed, and a trace does not help (Wen, Dang & Lyu 2024). With a search the key and its value are enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.config.tasks import AssociativeRecall as Config
from pipeline.tasks.base import TARGET, mix
from pipeline.tasks.pairs import different
from pipeline.tasks.retriever import Query, Searches
from pipeline.tasks.symbols import SymbolTask, Writer, in_turns, inside, write_prompt, write_search
from pipeline.tasks.vocabulary import NODES


class Drawn(NamedTuple):
    """Names of keys, values, and the pair asked for."""

    key_BN: np.ndarray
    value_BN: np.ndarray
    place_B: np.ndarray


class AssociativeRecall(SymbolTask):
    """Generator of associative recall."""

    config: Config

    def drawn(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> Drawn:
        """Different keys, uniform values, a uniform pair."""
        (length_B,) = settled
        key_BN = different(rng, len(length_B), width, self.config.alphabet, self.config.names)
        value_BN = rng.integers(self.config.alphabet, size=key_BN.shape, dtype=np.uint16)
        return Drawn(key_BN, value_BN, rng.integers(length_B))

    def hashes(self, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Of the pairs, in whatever order, and the key asked for."""
        code_BN = mix(drawn.key_BN.astype(np.uint64) << np.uint64(16) | drawn.value_BN.astype(np.uint64))
        asked_B = np.take_along_axis(code_BN, drawn.place_B[:, None], axis=1)[:, 0]
        return np.where(inside(length_B, code_BN.shape[1]), code_BN, np.uint64(0)).sum(axis=1, dtype=np.uint64) + mix(asked_B)

    def write(self, rows: Writer, drawn: Drawn, length_B: np.ndarray) -> np.ndarray:
        """Prompt, then the walk or the search."""
        asked_B, answer_B = (
            np.take_along_axis(names_BN + NODES, drawn.place_B[:, None], axis=1)[:, 0] for names_BN in (drawn.key_BN, drawn.value_BN)
        )
        pairs_BK = in_turns(drawn.key_BN + NODES, drawn.value_BN + NODES)
        write_prompt(rows, pairs_BK, inside(2 * length_B, pairs_BK.shape[1]), asked_B)
        if self.config.layout == "cot":
            rows.add(TARGET, pairs_BK, keep_BK=inside(2 * drawn.place_B + 2, pairs_BK.shape[1]))
        elif self.config.layout == "icr":
            write_search(rows, answer_B, asked_B)
        return answer_B

    def searches(self, body: list[int]) -> KeySearches:
        """Values by key."""
        return KeySearches(dict(zip(body[::2], body[1::2], strict=True)))


class KeySearches(Searches):
    """Answers a key with its value."""

    def __init__(self, values: dict[int, int]) -> None:
        super().__init__()
        self.values = values

    def look_up(self, query: Query) -> int | None:
        """One key."""
        return self.values.get(query[0]) if len(query) == 1 else None
