"""Optimizers, learning-rate schedules, gradient norms and the moving average of weights."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.config.learners import Acting, Descent, Schedule

LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Layers of torch whose weights are decayed; their biases, which have one dimension, are not."""


def make_optimizer(network: nn.Module, config: Descent) -> torch.optim.Optimizer:
    """The configured update rule over all parameters. Adam runs as one fused kernel, on the CPU too: a third of the time."""
    groups = parameter_groups(network, config.weight_decay)
    shared: dict[str, Any] = {"lr": config.learning_rate, "eps": config.eps}
    if config.optimizer == "rmsprop":
        return _light(torch.optim.RMSprop)(groups, alpha=config.betas[1], foreach=True, **shared)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    fused = all(parameter.is_floating_point() for parameter in network.parameters())
    return _light(kind)(groups, betas=config.betas, fused=fused, **shared)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that are decayed and those that are not; one group of all where nothing is."""
    if not weight_decay:
        return [{"params": list(network.parameters()), "weight_decay": 0.0}]
    decayed = {id(parameter) for module in network.modules() for parameter in decayed_parameters(module)}
    split = [[parameter for parameter in network.parameters() if (id(parameter) in decayed) == wanted] for wanted in (True, False)]
    groups = [{"params": parameters, "weight_decay": decay} for parameters, decay in zip(split, (weight_decay, 0.0), strict=True)]
    return [group for group in groups if group["params"]]


def decayed_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of this module itself, without its submodules, that weight decay applies to.

    Those that the module names in `decayed`; of torch's layers the weights. A plain `nn.Parameter` may be a rate, a step size, a gain, so
    it is left alone whatever its shape.
    """
    declared: tuple[str, ...] = getattr(module, "decayed", ())
    own = dict(module.named_parameters(recurse=False))
    assert all(hasattr(module, name) for name in declared), f"{type(module).__name__}: decayed names what is not there: {declared}"
    layer = isinstance(module, LAYERS)
    return [parameter for name, parameter in own.items() if name in declared or (layer and parameter.ndim >= 2)]


def _light(kind: type[torch.optim.Optimizer]) -> Any:
    """The same optimizer without the wrappers that import torch's compiler at the first use: seconds of every job, for nothing here."""
    methods = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in methods}
    return type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def learning_rate(config: Descent, step: int) -> float:
    """Learning rate of the update after `step` updates: linear warm-up, then the schedule.

    With n steps after the warm-up, p their share of the steps after it, and f = `min_lr_ratio`:
    cosine f + (1 - f)(1 + cos(pi p)) / 2, linear f + (1 - f)(1 - p), inverse max(f, 1 / (1 + n / half_life)).
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    return config.learning_rate * _shape(config, config.lr_schedule, config.min_lr_ratio, step, config.warmup_steps)


def ent_coef(config: Acting, step: int) -> float:
    """Entropy weight of the update after `step` updates, by a schedule of the same forms without a warm-up."""
    return config.ent_coef * _shape(config, config.ent_coef_schedule, config.min_ent_coef_ratio, step)


def _shape(config: Descent, schedule: Schedule, final: float, step: int, begin: int = 0) -> float:
    """What a schedule that begins after `begin` steps multiplies by at a step."""
    if schedule == "constant":
        return 1.0
    if schedule == "inverse":
        return max(final, 1 / (1 + (step - begin) / config.half_life))
    assert config.total_steps is not None
    part = min((step - begin) / max(config.total_steps - begin, 1), 1.0)
    falling = 1 - part if schedule == "linear" else (1 + math.cos(math.pi * part)) / 2
    return final + (1 - final) * falling


def clip_gradients(optimizer: torch.optim.Optimizer, limit: float | None) -> Tensor:
    """Scale all gradients so that their global norm is at most `limit`; returns the norm before that."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)


class WeightAverage:
    """An exponential moving average of a network's weights, from its first ones on: average <- decay average + (1 - decay) weights.

    Buffers are copied, not averaged. `network` is a whole network in evaluation mode that holds the averaged weights.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(source).eval().requires_grad_(False)
        self._blend = get_ema_multi_avg_fn(decay)
        self._parameters: tuple[list[Tensor], list[Tensor]] = ([*self.network.parameters()], [*source.parameters()])
        self._buffers = list(zip(self.network.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move a step towards the present weights."""
        self._blend(*self._parameters, 0)
        for mine, current in self._buffers:
            mine.copy_(current)
