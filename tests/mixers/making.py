"""Mixers and sequences for tests.

Notation: B = batch size, T = sequence length, D = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.config import mixers
from pipeline.mixers.base import Mixer
from pipeline.networks.stack import make_mixer
from pipeline.ops.state import State, leaves

MIXERS: dict[str, Any] = dict(mixers.MIXERS)
CAUSAL = sorted(name for name, kind in MIXERS.items() if kind.causal)
WHOLE_ROWS = sorted(name for name, kind in MIXERS.items() if not kind.causal)
"""Mixers that read whole rows, without a state."""
WIDTH = 16
CELLS = 9
"""Positions of the rows that mixers of one length are made for."""
EXACT = 1e-10
"""Absolute difference allowed in float64."""


def make(name: str, dtype: torch.dtype = torch.float64, width: int = WIDTH, cells: int = CELLS, **fields: Any) -> Any:
    """A mixer of the catalogue with seeded weights; `cells` matters where they are for rows of one length."""
    torch.manual_seed(7)
    return make_mixer(MIXERS[name](**fields), width, cells).to(dtype)


def sequence(batch: int, steps: int, dtype: torch.dtype = torch.float64, width: int = WIDTH, seed: int = 0) -> Tensor:
    """Standard normal x_BTD."""
    return torch.randn(batch, steps, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def resets(batch: int, steps: int, seed: int = 1) -> Tensor:
    """Random reset_BT: a fifth of all positions; row 0 starts with one, row 1 has none."""
    reset_BT = torch.rand(batch, steps, generator=torch.Generator().manual_seed(seed)) < 0.2
    reset_BT[0, 0] = True
    reset_BT[1] = False
    return reset_BT


def steps_of(mixer: Mixer, x_BTD: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """The sequence one step at a time."""
    state = mixer.initial_state(x_BTD.shape[0]) if state is None else state
    outputs = []
    for x_BD in x_BTD.unbind(1):
        y_BD, state = mixer.step(x_BD, state)
        outputs.append(y_BD)
    return torch.stack(outputs, 1), state


def close(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    """Equal up to an absolute tolerance, which floating point allows to grow with the values."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def same_future(mixer: Mixer, found: State, expected: State, batch: int, tolerance: float = EXACT) -> None:
    """Two states stand for the same past: what follows is the same, for steps and for a sequence. Spare room may differ."""
    assert len(leaves(found)) == len(leaves(expected))
    x_BTD = sequence(batch, 3, next((leaf.dtype for leaf in leaves(found) if leaf.is_floating_point()), torch.float64), seed=99)
    for run in (steps_of, mixer):
        close(run_on(mixer, run, x_BTD, found), run_on(mixer, run, x_BTD, expected), tolerance)


def run_on(mixer: Mixer, run: Any, x_BTD: Tensor, state: State) -> Tensor:
    """Outputs of either way of running."""
    return run(mixer, x_BTD, state)[0] if run is steps_of else run(x_BTD, state)[0]


def rows_alone(mixer: Mixer, x_BTD: Tensor, lengths: Sequence[int]) -> list[tuple[Tensor, State]]:
    """Each row run by itself without padding."""
    return [mixer(x_BTD[row : row + 1, :length]) for row, length in enumerate(lengths)]


def nbytes(state: State) -> int:
    """Bytes of a state's tensors."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))
