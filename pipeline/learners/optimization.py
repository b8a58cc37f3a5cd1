"""Update rules, learning-rate schedules, gradient clipping, and the exponential moving average of weights."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.config.learners import Descent, OnPolicy, Schedule

LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Torch layers whose weights are decayed; their biases, which are one-dimensional, are not."""


def make_rule(config: Descent, *networks: nn.Module) -> Rule:
    """Create the configured update rule for all parameters of the given networks."""
    optimizer = make_optimizer(config, *networks)
    return Rule(optimizer, lambda steps, flops: learning_rate(config, steps, flops), config.max_grad_norm)


def make_optimizer(config: Descent, *networks: nn.Module) -> torch.optim.Optimizer:
    """Create the configured optimizer. Adam uses the fused kernel, also on the CPU, where it takes a third of the time."""
    groups = parameter_groups(networks, config.weight_decay)
    if config.optimizer == "sign_sgd":
        return _light(SignSGD)(groups, lr=config.learning_rate)
    shared: dict[str, Any] = {"lr": config.learning_rate, "eps": config.eps}
    if config.optimizer == "rmsprop":
        return _light(torch.optim.RMSprop)(groups, alpha=config.betas[1], foreach=True, **shared)
    optimizer_class = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    fused = all(parameter.is_floating_point() for network in networks for parameter in network.parameters())
    return _light(optimizer_class)(groups, betas=config.betas, fused=fused, **shared)


def parameter_groups(networks: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those with weight decay and those without; a single group if there is no decay."""
    every = [parameter for network in networks for parameter in network.parameters()]
    if not weight_decay:
        return [{"params": every, "weight_decay": 0.0}]
    decayed = {id(parameter) for network in networks for module in network.modules() for parameter in decayed_parameters(module)}
    split = [[parameter for parameter in every if (id(parameter) in decayed) == wanted] for wanted in (True, False)]
    groups = [{"params": parameters, "weight_decay": decay} for parameters, decay in zip(split, (weight_decay, 0.0), strict=True)]
    return [group for group in groups if group["params"]]


def decayed_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the module's own parameters, without submodules, that weight decay applies to.

    These are the ones listed in the module's `decayed`, and the weights of torch's layers. Any other `nn.Parameter` may be a rate, a step size
    or a gain, so it is not decayed, whatever its shape.
    """
    declared: tuple[str, ...] = getattr(module, "decayed", ())
    own = dict(module.named_parameters(recurse=False))
    assert all(hasattr(module, name) for name in declared), f"{type(module).__name__}: decayed names what is not there: {declared}"
    layer = isinstance(module, LAYERS)
    return [parameter for name, parameter in own.items() if name in declared or (layer and parameter.ndim >= 2)]


def _light(optimizer_class: type[torch.optim.Optimizer]) -> Any:
    """Return the optimizer without the wrappers that import torch's compiler on first use, which takes seconds."""
    methods = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    plain = {name: inspect.unwrap(getattr(optimizer_class, name)) for name in methods}
    return type(optimizer_class.__name__, (optimizer_class,), {**plain, "step": torch.no_grad()(inspect.unwrap(optimizer_class.step))})


def learning_rate(config: Descent, step: int, flops: int = 0) -> float:
    """Return the learning rate of update number `step`, from 0, after updates of `flops` FLOPs: linear warm-up, then the schedule.

    With n = steps since the warm-up, p = n as a fraction of all steps after it, and f = `min_lr_ratio`:
    cosine f + (1 - f)(1 + cos(pi p)) / 2, linear f + (1 - f)(1 - p), inverse max(f, 1 / (1 + n / half_life)).

    With a budget in FLOPs, p is the fraction of the budget that is spent, or of what a warm-up given as a fraction leaves of it.
    """
    if step < config.warmup_updates:
        return config.learning_rate * (step + 1) / config.warmup_updates
    if flops < config.warmup_flops:
        return config.learning_rate * flops / config.warmup_flops
    if config.lr_schedule == "inverse":
        return config.learning_rate * _inverse(config, config.min_lr_ratio, step - config.warmup_updates)
    part = _part_done(config, step, flops, config.warmup_updates, config.warmup_flops)
    return config.learning_rate * _shape(config.lr_schedule, config.min_lr_ratio, part)


def ent_coef(config: OnPolicy, step: int, flops: int = 0) -> float:
    """Return the entropy coefficient of update number `step`, from 0, by the same schedules without a warm-up."""
    if config.ent_coef_schedule == "inverse":
        return config.ent_coef * _inverse(config, config.min_ent_coef_ratio, step)
    return config.ent_coef * _shape(config.ent_coef_schedule, config.min_ent_coef_ratio, _part_done(config, step, flops))


def _inverse(config: Descent, final: float, steps: int) -> float:
    """Return the factor of the inverse schedule after `steps` steps."""
    return max(final, 1 / (1 + steps / config.half_life))


def _part_done(config: Descent, step: int, flops: int, first_step: int = 0, first_flops: float = 0.0) -> float:
    """Return how much of the budget after the first steps or FLOPs is spent, 0..1; 0 with a budget in seconds, whose end is unknown."""
    if config.flops is not None:
        return min((flops - first_flops) / (config.flops - first_flops), 1.0)
    return min((step - first_step) / max(config.total_steps - first_step, 1), 1.0) if config.total_steps is not None else 0.0


def _shape(schedule: Schedule, final: float, part: float) -> float:
    """Return the factor of a schedule when a part of it, 0..1, is over."""
    if schedule == "constant":
        return 1.0
    falling = 1 - part if schedule == "linear" else (1 + math.cos(math.pi * part)) / 2
    return final + (1 - final) * falling


@dataclass(frozen=True)
class Rule:
    """An update rule: an optimizer over some parameters, its learning rate by number of updates and their FLOPs, and its maximum gradient norm.

    FLOPs are 0 for learners that do not count them.
    """

    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int, int], float]
    max_grad_norm: float | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters of the optimizer."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


class Optimizers:
    """The update rules of a learner by name, each with its own parameters, learning-rate schedule and gradient clipping.

    The rule `main` logs the history columns `learning_rate` and `gradient_norm`, others `{name}_learning_rate` and so on.
    """

    def __init__(self, **rules: Rule) -> None:
        self.rules = rules
        known = [id(parameter) for rule in rules.values() for parameter in rule.parameters]
        assert len(known) == len(set(known)), "two rules update the same parameter"

    def zero_grad(self) -> None:
        """Reset the gradients of all parameters to None."""
        for rule in self.rules.values():
            rule.optimizer.zero_grad(set_to_none=True)

    def step(self, steps: int, *names: str, flops: int = 0) -> dict[str, Tensor]:
        """Step all rules, or the named ones, with the learning rates after `steps` updates of `flops` FLOPs together.

        Returns gradient norms by history column.
        """
        norms = {}
        for name in names or self.rules:
            rule = self.rules[name]
            for group in rule.optimizer.param_groups:
                group["lr"] = rule.learning_rate(steps, flops)
            norms[_column(name, "gradient_norm")] = clip_gradients(rule.parameters, rule.max_grad_norm)
            rule.optimizer.step()
        return norms

    def learning_rates(self, steps: int, flops: int = 0) -> dict[str, float | int | None]:
        """Return the learning rates after `steps` updates of `flops` FLOPs together, by history column."""
        return {_column(name, "learning_rate"): rule.learning_rate(steps, flops) for name, rule in self.rules.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every optimizer. Learning rates are a function of the updates so far."""
        return {name: rule.optimizer.state_dict() for name, rule in self.rules.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore every optimizer."""
        for name, rule in self.rules.items():
            rule.optimizer.load_state_dict(state[name])


def _column(rule: str, name: str) -> str:
    return name if rule == "main" else f"{rule}_{name}"


class SignSGD(torch.optim.Optimizer):
    """Signed gradient descent with decoupled weight decay (Bernstein et al. 2018): p <- (1 - lr weight_decay) p - lr sign(g).

    With a sparse gradient, as from `nn.Embedding(sparse=True)`, only the rows that were looked up are updated and decayed, once each: the
    rule for the puzzle embeddings of Tiny Recursive Models (Jolicoeur-Martineau 2025), whose table is far larger than a batch.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            rate, kept = group["lr"], 1 - group["lr"] * group["weight_decay"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if not gradient.is_sparse:
                    parameter.mul_(kept).sub_(gradient.sign(), alpha=rate)
                    continue
                gradient = gradient.coalesce()
                rows_N = gradient.indices()[0]
                parameter.index_copy_(0, rows_N, kept * parameter[rows_N] - rate * gradient.values().sign())


def clip_gradients(parameters: list[Tensor], limit: float | None) -> Tensor:
    """Clip gradients to a global norm of `limit`, and return the norm before clipping.

    Sparse gradients are excluded: their rule, `SignSGD`, does not depend on their scale.
    """
    dense = [parameter for parameter in parameters if parameter.grad is None or not parameter.grad.is_sparse]
    return nn.utils.clip_grad_norm_(dense, math.inf if limit is None else limit)


class WeightAverage:
    """An exponential moving average of a network's weights, started from the initial ones: average <- decay average + (1 - decay) weights.

    Buffers are copied, not averaged. `network` is a copy of the network in evaluation mode with the averaged weights.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(source).eval().requires_grad_(False)
        self._blend = get_ema_multi_avg_fn(decay)
        self._parameters: tuple[list[Tensor], list[Tensor]] = ([*self.network.parameters()], [*source.parameters()])
        self._buffers = list(zip(self.network.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def restart(self) -> None:
        """Restart the average from the current weights."""
        for mine, current in [*zip(*self._parameters, strict=True), *self._buffers]:
            mine.copy_(current)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights."""
        self._blend(*self._parameters, 0)
        for mine, current in self._buffers:
            mine.copy_(current)
