"""The copy task: symbols, a delay, a delimiter, then the symbols again from memory.

With an alphabet of 8 the blank is 8 and the delimiter 9; `symbols: 3, delay: 4` gives rows like

    tokens   3 1 6   8 8 8 9   8 8 8
    role     . . .   . . . .   a a a      a: answer, the scored positions
    target                     3 1 6      6 1 3 with recall: reverse

`selective` spreads the symbols, in order, over all positions before the delimiter, and `noise: 2` fills the rest with tokens 11 and 12:

    tokens   11 3 12 1 11 6 9   8 8 8
    target                      3 1 6

Source: Hochreiter & Schmidhuber 1997; Arjovsky, Shah & Bengio 2016 (layout); Gu & Dao 2023 (selective copying).

Notation: B = rows, S = symbols of all rows, concatenated.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.config.tasks import Copy as Config
from pipeline.storage.rng import Key, generator
from pipeline.tasks.base import ANSWER, PROMPT, Ragged, Split, TokenTask, rows_of, sample_integers, sample_letters, within

CELLS = 1 << 22
"""Random numbers sampled at once when positions are scattered: 32 MiB."""


class Copy(TokenTask):
    """The copy task; tokens: letters 0..V-1, V blank, V+1 delimiter, V+2 padding, then noise."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.blank, self.delimiter, self.padding = (config.alphabet + offset for offset in range(3))
        self.separable = config.separable

    def generate(self, rows: int, key: Key, level: int | None = None, column: str | None = None, split: Split = "train") -> pa.RecordBatch:
        """Generate rows; a pure function of its arguments.

        `level` is an upper bound on `column`: delay (default) or symbols; the other is sampled as usual.
        Raises UserError if no row satisfies the bound.
        """
        rng = generator(key)
        bounds = {column or "delay": level}
        symbols_B = sample_integers("copy", "symbols", self.config.symbols, rows, rng, bounds.get("symbols"))
        delay_B = sample_integers("copy", "delay", self.config.delay, rows, rng, bounds.get("delay"))
        symbols_S = sample_letters(rng, self.config.alphabet, symbols_B, delay_B, split)
        tokens = self._tokens(rng, symbols_S, symbols_B, delay_B)
        layouts, layout_B = _layouts(symbols_B, delay_B)
        answer_S = symbols_S[self._recall(symbols_B)]
        return rows_of(
            tokens=Ragged(tokens, 2 * symbols_B + delay_B, isinstance(self.config.symbols, int) and isinstance(self.config.delay, int)),
            layouts=layouts,
            layout_B=layout_B,
            target=Ragged(answer_S, symbols_B, isinstance(self.config.symbols, int)),
            columns={"delay": delay_B, "symbols": symbols_B},
            padding=self.padding,
        )

    def overlap(self) -> str:
        """Describe which rows are too few for disjoint splits."""
        return self.config.overlap or "Rows of one split never have symbols and delay of another's."

    def _tokens(self, rng: np.random.Generator, symbols_S: np.ndarray, symbols_B: np.ndarray, delay_B: np.ndarray) -> np.ndarray:
        lengths = 2 * symbols_B + delay_B
        starts = np.cumsum(lengths) - lengths
        if self.config.noise:
            tokens = rng.integers(self.padding + 1, self.config.vocabulary, size=lengths.sum(), dtype=np.uint16)
        else:
            tokens = np.full(lengths.sum(), self.blank, np.uint16)
        place_S = _scatter(rng, symbols_B, symbols_B + delay_B - 1) if self.config.selective else within(symbols_B)
        tokens[np.repeat(starts, symbols_B) + place_S] = symbols_S
        tokens[starts + symbols_B + delay_B - 1] = self.delimiter
        tokens[np.repeat(starts + symbols_B + delay_B, symbols_B) + within(symbols_B)] = self.blank
        return tokens

    def _recall(self, symbols_B: np.ndarray) -> np.ndarray:
        """Return the index of each answer in the concatenated symbols."""
        if self.config.recall == "forward":
            return np.arange(symbols_B.sum())
        return np.repeat(np.cumsum(symbols_B), symbols_B) - 1 - within(symbols_B)


def _scatter(rng: np.random.Generator, counts: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Sample, per row, a uniform subset of `counts` positions of 0..among-1, ascending; concatenated."""
    widest = int(among.max(initial=1))
    step = max(1, CELLS // widest)
    blocks = range(0, len(counts), step)
    return np.concatenate([np.empty(0, np.int64), *(_scatter_block(rng, counts[at : at + step], among[at : at + step]) for at in blocks)])


def _scatter_block(rng: np.random.Generator, counts: np.ndarray, among: np.ndarray) -> np.ndarray:
    keys = rng.random((len(counts), int(among.max())))
    keys[np.arange(keys.shape[1]) >= among[:, None]] = 2.0
    last = np.take_along_axis(np.sort(keys, axis=1), counts[:, None] - 1, axis=1)
    return np.nonzero(keys <= last)[1]


def _layouts(symbols_B: np.ndarray, delay_B: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """Return the distinct role columns, and the index of each row's."""
    base = int(delay_B.max(initial=0)) + 1
    codes, index_B = np.unique(symbols_B * base + delay_B, return_inverse=True)
    prompt, answer = bytes([PROMPT]), bytes([ANSWER])
    return [prompt * (symbols + delay) + answer * symbols for symbols, delay in (divmod(int(code), base) for code in codes)], index_B
