"""The floating-point operations (FLOPs) of a network: counted for one step, summed over the steps of a sequence.

    forward      2 per multiply-add of the matrix products and convolutions of a step
    training     forward and backward: two more products for each, one if its input needs no gradient, as that of a first layer

They are counted by the formulas of torch's FLOP counter. Element-wise operations are not: gates, norms, and the scans of recurrent states.
`step` is plain torch with every mixer, so a count does not depend on the backend that a training uses, and is the same on every machine.
What a parallel form computes beyond the steps, such as masked scores, and padding are not counted either.

Steps are taken with real numbers: attention reads the lengths of its cache, which have no values on torch's meta device.

Notation: B = batch size, T = sequence length; context = tokens in the state after a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


def random_inputs(network: Any, batch: int, length: int) -> dict[str, Tensor]:
    """Return random arguments of the network's `forward` on its device, of shapes (B, T, ...)."""
    device = next(network.parameters()).device
    return {name: values.to(device) for name, values in network.random_inputs(batch, length).items()}


def input_at(inputs: dict[str, Tensor], position: int) -> dict[str, Tensor]:
    """Slice sequences at a position into the inputs of a step: tokens_BT becomes tokens_B."""
    return {name.replace("_BT", "_B"): sequence[:, position] for name, sequence in inputs.items()}


class StepCosts:
    """The FLOPs of a network's steps by context, counted at few contexts because they are piecewise affine.

    They are constant for a state of constant size, grow by the same amount with every token for attention, and stop growing at the end of a
    window. Between two contexts they are affine if those in the middle lie on the line; otherwise each half is counted in the same way.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self._of_step = self._up_to = np.zeros((1, 2), np.int64)
        """Forward and training FLOPs by context, of the step that leads there and of all steps up to there."""

    def steps(self, contexts: np.ndarray) -> Flops:
        """Return the FLOPs of one step to each of these contexts, together."""
        self._extend(int(contexts.max(initial=0)))
        return Flops(*self._of_step[contexts.ravel()].sum(0).tolist())

    def sequences(self, lengths: np.ndarray) -> Flops:
        """Return the FLOPs of sequences of these lengths, together."""
        self._extend(int(lengths.max(initial=0)))
        return Flops(*self._up_to[lengths].sum(0).tolist())

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
        flops = step_flops(self.network, context)
        if not flops.forward:
            raise UserError("network: torch counts no FLOPs in its steps; expected another budget than flops")
        return np.array(flops, np.int64)
