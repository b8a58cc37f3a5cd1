"""The floating-point operations (FLOPs) of a network: counted for one step, summed over the steps of a sequence.

A network that is not causal has no steps: its FLOPs are counted for a whole row.

    forward      2 per multiply-add of the matrix products and convolutions of a step, or of a row
    training     forward and backward: two more products for each, one if its input needs no gradient, as that of a first layer

They are counted by the formulas of torch's FLOP counter. Element-wise operations are not: gates, norms, and the scans of recurrent states.
`step` is plain torch with every mixer, so a count does not depend on the backend that a training uses, and is the same on every machine.
What a parallel form computes beyond the steps, such as masked scores, and padding are not counted either.

Steps are taken with real numbers: attention reads the lengths of its cache, which have no values on torch's meta device.

Notation: B = batch size, T = sequence length; context = tokens in the state after a step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import mixers as config
from pipeline.mixers.base import Mixer
from pipeline.mixers.both_ways import BothWays
from pipeline.ops import backends
from pipeline.ops.state import State, leaves, transform
from pipeline.storage.errors import UserError

PART = 1024
"""Tokens read at once to fill the state up to a context."""


class Flops(NamedTuple):
    """FLOPs of the forward pass, and of forward and backward pass together."""

    forward: int
    training: int


class _Counter(TorchDispatchMode):
    """Adds up the formulas of torch's FlopCounterMode, which itself imports torch's compiler: two CPU seconds in every process."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # here, because it imports Triton: a third of a CPU second

        super().__init__()
        self.total, self.formulas = 0, flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, so torch need not import the compiler to keep it out of this mode."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self.formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=result) if formula else 0
        return result


def count_flops(work: Callable[[], Any]) -> int:
    """Count the FLOPs of a call, as torch.utils.flop_counter.FlopCounterMode does."""
    with _Counter() as counter:
        work()
    return counter.total


def step_flops(network: Any, context: int) -> Flops:
    """Count one row's FLOPs of the step that brings its state to `context` tokens. The network is in evaluation mode.

    They are what a second row adds: products of weights alone, which a sequence needs once, are left out. Leaves gradients, torch's generators
    and the record of backends as they were.
    """
    used = backends.used()
    with torch.random.fork_rng(devices=[]), _gradients_kept(network):
        one, two = (_step_flops(network, context, rows) for rows in (1, 2))
    backends.forget(used)
    return Flops(two.forward - one.forward, two.training - one.training)


def _step_flops(network: Any, context: int, rows: int) -> Flops:
    inputs, state = input_at(random_inputs(network, rows, 1), 0), _filled_state(network, context - 1, rows)
    with torch.no_grad():
        network.step(**inputs, state=state)  # what a network computes once and keeps must not be in the count of one row only
        forward = count_flops(lambda: network.step(**inputs, state=state))
    carried = transform(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), state)
    with torch.enable_grad():
        training = count_flops(lambda: _differentiate(network.step(**inputs, state=carried)))
    return Flops(forward, training)


def _differentiate(returned: tuple[Any, State]) -> None:
    """Run the backward pass of all that a step returned."""
    torch.stack([leaf.sum() for leaf in leaves(returned) if leaf.requires_grad]).sum().backward()


@contextmanager
def _gradients_kept(network: nn.Module) -> Iterator[None]:
    """Restore the weights' gradients after the block, which begins without any."""
    before = [(parameter, parameter.grad) for parameter in network.parameters()]
    network.zero_grad(set_to_none=True)
    yield
    for parameter, gradient in before:
        parameter.grad = gradient


@torch.no_grad()
def _filled_state(network: Any, context: int, rows: int) -> State:
    """Return a state after `context` random tokens; the initial state if it has the same size."""
    state = network.initial_state(rows)
    blocks = getattr(network.config, "blocks", None)
    if blocks and all(mixer.constant_state for mixer, _ in blocks):
        return state
    for start in range(0, context, PART):
        _, state = network(**random_inputs(network, rows, min(PART, context - start)), state=state)
    return state


def row_flops(network: Any, length: int, **arguments: Any) -> Flops:
    """Count one row's FLOPs of a network that is not causal, which reads a row of `length` tokens at once; it is in evaluation mode.

    They are what a second row adds. Attention counts as its two products, whatever kernel computes it, and the causal mixers within
    `both_ways` as their steps. arguments: further ones of the network's `forward`. Leaves gradients, torch's generators and the record of
    backends as they were.
    """
    used = backends.used()
    with torch.random.fork_rng(devices=[]), _gradients_kept(network), sdpa_kernel(SDPBackend.MATH), _both_ways_apart(network) as calls:
        one, two = (_row_flops(network, length, rows, calls, arguments) for rows in (1, 2))
    within = [_both_ways_flops(*call) for call in calls]
    backends.forget(used)
    forward, training = (sum(flops[place] for flops in within) for place in (0, 1))
    return Flops(two.forward - one.forward + forward, two.training - one.training + training)


def _row_flops(network: Any, length: int, rows: int, calls: list[_BothWaysCall], arguments: dict[str, Any]) -> Flops:
    inputs = random_inputs(network, rows, length) | arguments
    with torch.no_grad():
        forward = count_flops(lambda: network(**inputs))
    calls.clear()
    with torch.enable_grad():
        training = count_flops(lambda: _differentiate(network(**inputs)))
    return Flops(forward, training)


class _BothWaysCall(NamedTuple):
    """A call of a mixer in a pass: the row's length, whether it is differentiated, and whether its input needs a gradient."""

    mixer: BothWays
    length: int
    differentiated: bool
    learned: bool


@contextmanager
def _both_ways_apart(network: nn.Module) -> Iterator[list[_BothWaysCall]]:
    """Within the block, `both_ways` computes zeros, with gradients as if it mixed. Yields the list of its calls, which the block may clear."""
    calls: list[_BothWaysCall] = []
    mixers = [module for module in network.modules() if isinstance(module, BothWays)]

    def stand_in(mixer: BothWays, x_BTD: Tensor, *_: Any) -> tuple[Tensor, State]:
        calls.append(_BothWaysCall(mixer, x_BTD.shape[1], torch.is_grad_enabled(), x_BTD.requires_grad))
        weights = list(mixer.parameters())
        return sum((0 * weight.sum() for weight in weights), 0 * x_BTD if weights else torch.zeros_like(x_BTD)), ()

    for mixer in mixers:
        vars(mixer)["forward"] = functools.partial(stand_in, mixer)
    try:
        yield calls
    finally:
        for mixer in mixers:
            del vars(mixer)["forward"]


class _MixerSteps(nn.Module):
    """A causal mixer as a network, to count its steps. learned: its input needs a gradient."""

    def __init__(self, mixer: Mixer, config: config.Mixer, context: int, learned: bool) -> None:
        super().__init__()
        self.mixer, self.context, self.learned = mixer, context, learned
        self.config = SimpleNamespace(blocks=[(config, 0.0)], causal=True)
        self.initial_state, self.forward, self.step = mixer.initial_state, mixer.forward, mixer.step

    def random_inputs(self, batch: int, length: int) -> dict[str, Tensor]:
        return {"x_BTD": torch.randn(batch, length, self.mixer.width).requires_grad_(self.learned)}


def _both_ways_flops(mixer: BothWays, length: int, differentiated: bool, learned: bool) -> Flops:
    """Count one row's FLOPs of the two mixers that `both_ways` is made of, which cost alike."""
    if not list(mixer.parameters()):
        return Flops(0, 0)
    with torch.enable_grad():
        one = StepCosts(_MixerSteps(mixer.forwards, mixer.config, length, learned), free=True).sequences(np.array([length]))
    return Flops(2 * one.forward, 2 * (one.training if differentiated else one.forward))


def random_inputs(network: Any, batch: int, length: int) -> dict[str, Tensor]:
    """Return random arguments of the network's `forward` on its device, of shapes (B, T, ...) or (B)."""
    device = next(network.parameters()).device
    return {name: values.to(device) for name, values in network.random_inputs(batch, length).items()}


def input_at(inputs: dict[str, Tensor], position: int) -> dict[str, Tensor]:
    """Slice sequences at a position into the inputs of a step: tokens_BT becomes tokens_B; what each row has once stays as it is."""
    return {name.replace("_BT", "_B"): values[:, position] if "_BT" in name else values for name, values in inputs.items()}


class StepCosts:
    """The FLOPs of a network's steps by context, counted at few contexts because they are piecewise affine; or of whole rows by length.

    They are constant for a state of constant size, grow by the same amount with every token for attention, and stop growing at the end of a
    window. Between two contexts they are affine if those in the middle lie on the line; otherwise each half is counted in the same way.
    A network that is not causal has no steps; every length of its rows is counted once. free: steps may cost nothing.
    """

    def __init__(self, network: Any, free: bool = False) -> None:
        self.network, self.free = network, free
        self._of_row: dict[tuple[Any, ...], Flops] = {}
        self._of_step = self._up_to = np.zeros((1, 2), np.int64)
        """Forward and training FLOPs by context, of the step that leads there and of all steps up to there."""

    def steps(self, contexts: np.ndarray) -> Flops:
        """Return the FLOPs of one step to each of these contexts, together; for causal networks."""
        assert self.network.config.causal, "a network that reads whole rows has no steps"
        self._extend(int(contexts.max(initial=0)))
        return Flops(*self._of_step[contexts.ravel()].sum(0).tolist())

    def sequences(self, lengths: np.ndarray, **arguments: Any) -> Flops:
        """Return the FLOPs of sequences of these lengths, together. arguments: see `row`."""
        if not self.network.config.causal:
            return self._rows(lengths, arguments)
        self._extend(int(lengths.max(initial=0)))
        return Flops(*self._up_to[lengths].sum(0).tolist())

    def row(self, length: int, **arguments: Any) -> Flops:
        """Return the FLOPs of one row of this length, of a network that is not causal. arguments: further ones of its `forward`."""
        key = (length, *sorted(arguments.items()))
        if key not in self._of_row:
            self._of_row[key] = self._checked(row_flops(self.network, length, **arguments))
        return self._of_row[key]

    def _rows(self, lengths: np.ndarray, arguments: dict[str, Any]) -> Flops:
        """Return the FLOPs of whole rows of these lengths, together."""
        total = np.zeros(2, np.int64)
        for length, rows in zip(*(found.tolist() for found in np.unique(lengths, return_counts=True)), strict=True):
            total += rows * np.array(self.row(length, **arguments), np.int64)
        return Flops(*total.tolist())

    def _extend(self, context: int) -> None:
        """Count up to this context, and on to the next power of two if the network accepts it."""
        first = len(self._of_step)
        if context < first:
            return
        last = max(context, min(1 << (context - 1).bit_length(), self.network.context))
        self._of_step = np.concatenate([self._of_step, self._between(first, last, self._count(first), self._count(last))])
        self._up_to = self._of_step.cumsum(0)

    def _between(self, first: int, last: int, at_first: np.ndarray, at_last: np.ndarray) -> np.ndarray:
        """Return the FLOPs at all contexts from the first to the last, given those at both."""
        middle = (first + last) // 2
        if middle == first:
            return np.stack([at_first, at_last])[: last - first + 1]
        at_middle = self._count(middle)
        if ((at_middle - at_first) * (last - first) == (at_last - at_first) * (middle - first)).all():
            return at_first + (at_last - at_first) * np.arange(last - first + 1)[:, None] // (last - first)
        halves = self._between(first, middle, at_first, at_middle), self._between(middle, last, at_middle, at_last)
        return np.concatenate([halves[0], halves[1][1:]])

    def _count(self, context: int) -> np.ndarray:
        return np.array(self._checked(step_flops(self.network, context)), np.int64)

    def _checked(self, flops: Flops) -> Flops:
        if not flops.forward and not self.free:
            raise UserError("network: torch counts no FLOPs in its steps; expected another budget than flops")
        return flops
