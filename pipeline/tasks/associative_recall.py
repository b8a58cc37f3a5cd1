"""Associative recall: key-value pairs, then one of the keys again; the answer is its value.

With an alphabet of 3 (values a, b, c; keys are the names after them, here 3 to 9) and `length: 3`:

    direct   BOS 7 b 4 a 9 b QUERY 4 SEP | a
    cot      BOS 7 b 4 a 9 b QUERY 4 SEP | 7 b 4 a EOS a          all pairs up to the key's
    icr      BOS 7 b 4 a 9 b QUERY 4 SEP | SEARCH 4 END *a EOS a  *: search result, injected, not predicted

Keys are sampled without replacement, values are uniform and independent, and the queried pair is uniform. A search query is one key; its
result is the key's value, or FAIL if the row does not contain the key.

Memory: a model that reads the row once and forgets the value of one key gets one of the questions wrong, so at least
length x log2(alphabet) bits are needed, and a trace does not help (Wen, Dang & Lyu 2024). With search, the key and its value are enough.
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


class RecallInstances(NamedTuple):
    """Key names, values, and the queried pair."""

    key_BN: np.ndarray
    value_BN: np.ndarray
    place_B: np.ndarray


class AssociativeRecall(SymbolTask):
    """The associative recall task."""

    config: Config

    def sample_instances(self, rng: np.random.Generator, width: int, *settled: np.ndarray) -> RecallInstances:
        """Sample distinct keys, uniform values and a uniform pair to query."""
        (length_B,) = settled
        key_BN = different(rng, len(length_B), width, self.config.alphabet, self.config.names)
        value_BN = rng.integers(self.config.alphabet, size=key_BN.shape, dtype=np.uint16)
        return RecallInstances(key_BN, value_BN, rng.integers(length_B))

    def hashes(self, instances: RecallInstances, length_B: np.ndarray) -> np.ndarray:
        """Hash the set of pairs and the queried key."""
        code_BN = mix(instances.key_BN.astype(np.uint64) << np.uint64(16) | instances.value_BN.astype(np.uint64))
        asked_B = np.take_along_axis(code_BN, instances.place_B[:, None], axis=1)[:, 0]
        return np.where(inside(length_B, code_BN.shape[1]), code_BN, np.uint64(0)).sum(axis=1, dtype=np.uint64) + mix(asked_B)

    def write(self, rows: Writer, instances: RecallInstances, length_B: np.ndarray) -> np.ndarray:
        """Write the prompt, then the trace or the search."""
        asked_B, answer_B = (
            np.take_along_axis(names_BN + NODES, instances.place_B[:, None], axis=1)[:, 0]
            for names_BN in (instances.key_BN, instances.value_BN)
        )
        pairs_BK = in_turns(instances.key_BN + NODES, instances.value_BN + NODES)
        write_prompt(rows, pairs_BK, inside(2 * length_B, pairs_BK.shape[1]), asked_B)
        if self.config.layout == "cot":
            rows.add(TARGET, pairs_BK, keep_BK=inside(2 * instances.place_B + 2, pairs_BK.shape[1]))
        elif self.config.layout == "icr":
            write_search(rows, answer_B, asked_B)
        return answer_B

    def searches(self, body: list[int]) -> KeySearches:
        """Return searches for values by key."""
        return KeySearches(dict(zip(body[::2], body[1::2], strict=True)))


class KeySearches(Searches):
    """Returns the value of a key."""

    def __init__(self, values: dict[int, int]) -> None:
        super().__init__()
        self.values = values

    def look_up(self, query: Query) -> int | None:
        """Look up a query of one key."""
        return self.values.get(query[0]) if len(query) == 1 else None
