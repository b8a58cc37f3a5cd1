"""Building networks: seeded initial weights, and the width that meets a parameter budget."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline.config.catalogue import implementation
from pipeline.config.networks import Network
from pipeline.storage.errors import UserError
from pipeline.storage.rng import derive_key

AnyConfig = TypeVar("AnyConfig", bound=Network)

Sizes = Mapping[str, Any]
"""Sizes that a task requires of a network (`Task.sizes`): the constructor's arguments other than the config, by name."""

TOLERANCE = 0.03
"""Largest relative deviation of the parameter count from the budget."""


def build(config: Network, sizes: Sizes, seed: int = 0) -> nn.Module:
    """Build a network on the CPU, in evaluation mode (see `pipeline.networks.mode`), with its `config` and `sizes` as attributes.

    The same seed gives the same weights; torch's global generators are left unchanged. Raises UserError for unknown or missing sizes.
    """
    high, low, *_ = derive_key("weights", seed)
    resolved = resolve_width(config, sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(high << 31 | low >> 1)
        network: Any = _make(resolved, sizes).eval()
    network.config, network.sizes = resolved, dict(sizes)
    return network


def _make(config: Network, sizes: Sizes) -> nn.Module:
    network_class = implementation(config)
    try:
        inspect.signature(network_class).bind(config, **sizes)
    except TypeError as error:
        raise UserError(f"network: {config.name} is not made for a task of sizes {', '.join(sizes)}: {error}") from None
    return network_class(config, **sizes)


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters, each once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def resolve_width(config: AnyConfig, sizes: Sizes) -> AnyConfig:
    """Return the config with `width: auto` replaced by the width whose parameter count is closest to `parameters`.

    Parameters are counted on torch's meta device. Raises UserError, naming the closest counts, if none is within 3 %.
    """
    if getattr(config, "width", None) != "auto":
        return config
    target = getattr(config, "parameters", None)
    assert isinstance(target, int), "the config model requires parameters with width: auto"
    below, above = _around(config, target, sizes)
    count, width = min((below, above), key=lambda found: abs(found[0] - target))
    if abs(count - target) > TOLERANCE * target:
        reachable = " and ".join(f"{count:,} (width {width})" for count, width in sorted({below, above}))
        raise UserError(f"network: parameters: {target:,} cannot be met within 3 %; expected a value near {reachable}")
    return config.model_copy(update={"width": width, "parameters": None})


def _around(config: Network, target: int, sizes: Sizes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (parameters, width) just below and just above the target; both the same if even the smallest width is above."""
    stride = getattr(config, "stride", 1)
    counts: dict[int, int] = {}

    def count(multiple: int) -> int:
        if multiple not in counts:
            counts[multiple] = _count(config.model_copy(update={"width": multiple * stride}), sizes)
        return counts[multiple]

    high = 1
    while count(high) < target:
        high *= 2
    low = math.ceil(high / 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target else (low, middle)
    return (count(low), low * stride), (count(high), high * stride)


class _SkipNormal(TorchFunctionMode):
    """Skips `normal_`: on the meta device it samples nothing but imports torch's compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _count(config: Network, sizes: Sizes) -> int:
    with torch.device("meta"), _SkipNormal(), torch.random.fork_rng(devices=[]):
        return count_parameters(_make(config, sizes))
