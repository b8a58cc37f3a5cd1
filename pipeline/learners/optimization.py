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


def make_rules(config: Descent, network: nn.Module) -> dict[str, Rule]:
    """Create the rules of all parameters of a network, by name.

    main: the configured one. outer, with muon: AdamW at `outer_learning_rate` for all but the matrices of the blocks. identifiers: SignSGD for
    the table of identifiers, of which an update changes few rows. All follow the schedule of the learning rate.
    """
    table = table_of(network)
    rest = [parameter for parameter in network.parameters() if all(parameter is not one for one in table)]
    decayed = {id(one) for module in network.modules() for one in decayed_parameters(module)}

    def rule(optimizer: torch.optim.Optimizer, peak: float = config.learning_rate) -> Rule:
        factor = peak / config.learning_rate
        return Rule(optimizer, lambda steps, flops: factor * learning_rate(config, steps, flops), config.max_grad_norm)

    rules: dict[str, Rule] = {}
    if config.optimizer == "muon":
        hidden = {id(one) for name, one in network.named_parameters() if "blocks" in name.split(".") and one.ndim == 2}
        matrices, others = ([one for one in rest if (id(one) in hidden) == inner] for inner in (True, False))
        muon = _light(torch.optim.Muon)(_groups(matrices, decayed, config.weight_decay), lr=config.learning_rate, momentum=config.betas[0])
        adamw = _adam(config.model_copy(update={"optimizer": "adamw"}), _groups(others, decayed, config.weight_decay))
        rules |= {"main": rule(muon), "outer": rule(adamw, config.outer_learning_rate)}
    else:
        rules["main"] = rule(_optimizer(config, _groups(rest, decayed, config.weight_decay)))
    if table:
        peak, decay = getattr(config, "identifier_learning_rate", 1e-2), getattr(config, "identifier_weight_decay", 0.0)
        rules["identifiers"] = rule(_light(SignSGD)(table, lr=peak, weight_decay=decay), peak)
    return rules


def table_of(network: nn.Module) -> list[Tensor]:
    """Return the weights with sparse gradients: tables of which an update changes few rows, outside moving averages and gradient clipping."""
    return [module.weight for module in network.modules() if isinstance(module, nn.Embedding) and module.sparse]


def make_optimizer(config: Descent, *networks: nn.Module) -> torch.optim.Optimizer:
    """Create the configured optimizer, one that updates every kind of parameter, for all parameters of the given networks."""
    return _optimizer(config, parameter_groups(networks, config.weight_decay))


def _optimizer(config: Descent, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    assert config.optimizer != "muon", "muon is for matrices only: see make_rules"
    if config.optimizer == "sign_sgd":
        return _light(SignSGD)(groups, lr=config.learning_rate)
    if config.optimizer == "adam_atan2":
        return _light(AdamATan2)(groups, lr=config.learning_rate, betas=config.betas)
    if config.optimizer == "rmsprop":
        return _light(torch.optim.RMSprop)(groups, lr=config.learning_rate, eps=config.eps, alpha=config.betas[1], foreach=True)
    return _adam(config, groups)


def _adam(config: Descent, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Create Adam or AdamW with the fused kernel, which takes a third of the time on the CPU too."""
    optimizer_class = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    fused = all(parameter.is_floating_point() for group in groups for parameter in group["params"])
    return _light(optimizer_class)(groups, lr=config.learning_rate, eps=config.eps, betas=config.betas, fused=fused)


def parameter_groups(networks: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters of networks into those with weight decay and those without; a single group if there is no decay."""
    every = [parameter for network in networks for parameter in network.parameters()]
    return _groups(
        every, {id(one) for network in networks for module in network.modules() for one in decayed_parameters(module)}, weight_decay
    )


def _groups(every: list[nn.Parameter], decayed: set[int], weight_decay: float) -> list[dict[str, Any]]:
    if not weight_decay:
        return [{"params": every, "weight_decay": 0.0}]
    split = [[parameter for parameter in every if (id(parameter) in decayed) == wanted] for wanted in (True, False)]
    groups = [{"params": parameters, "weight_decay": decay} for parameters, decay in zip(split, (weight_decay, 0.0), strict=True)]
    return [group for group in groups if group["params"]] or groups[:1]


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


class AdamATan2(torch.optim.Optimizer):
    """Adam with an arctangent in place of the division (Everett et al. 2024), and decoupled weight decay:

        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        p <- (1 - lr weight_decay) p - lr / (1 - b1^t) atan2(m, sqrt(v / (1 - b2^t)))

    The step does not depend on the gradient's scale, needs no eps, and is bounded: |atan2| <= pi / 2. The correction of m's bias is outside
    of the arctangent, as in the code of Tiny Recursive Models.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            (first, second), rate, kept = group["betas"], group["lr"], 1 - group["lr"] * group["weight_decay"]
            for parameter in group["params"]:
                gradient, state = parameter.grad, self.state[parameter]
                if gradient is None:
                    continue
                if not state:
                    state |= {"step": 0, "m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}
                state["step"] += 1
                state["m"].lerp_(gradient, 1 - first)
                state["v"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
                deviation = state["v"].div(1 - second ** state["step"]).sqrt_()
                parameter.mul_(kept).add_(torch.atan2(state["m"], deviation), alpha=-rate / (1 - first ** state["step"]))


def clip_gradients(parameters: list[Tensor], limit: float | None) -> Tensor:
    """Clip gradients to a global norm of `limit`, and return the norm before clipping.

    Sparse gradients are excluded: their rule, `SignSGD`, does not depend on their scale.
    """
    dense = [parameter for parameter in parameters if parameter.grad is None or not parameter.grad.is_sparse]
    return nn.utils.clip_grad_norm_(dense, math.inf if limit is None else limit)


class WeightAverage:
    """An exponential moving average of a network's weights, started from the initial ones: average <- decay average + (1 - decay) weights.

    Buffers are copied, not averaged, and tables of identifiers are shared, see `table_of`. `network` is a copy of the network in evaluation mode
    with the averaged weights.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        table = table_of(source)
        self.network = copy.deepcopy(source, {id(one): one for one in table}).eval()
        shared = {id(one) for one in table}
        for parameter in self.network.parameters():
            parameter.requires_grad_(id(parameter) in shared)
        self._blend = get_ema_multi_avg_fn(decay)
        pairs = [pair for pair in zip(self.network.parameters(), source.parameters(), strict=True) if id(pair[1]) not in shared]
        self._parameters: tuple[list[Tensor], list[Tensor]] = ([mine for mine, _ in pairs], [theirs for _, theirs in pairs])
        self._buffers = list(zip(self.network.buffers(), source.buffers(), strict=True))
        self._shared = [name for name, parameter in source.named_parameters() if id(parameter) in shared]

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

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the buffers, without shared tables."""
        return {name: value for name, value in self.network.state_dict().items() if name not in self._shared}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore them."""
        present = self.network.state_dict()
        self.network.load_state_dict({**{name: present[name] for name in self._shared}, **state})
