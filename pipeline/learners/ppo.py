"""Proximal policy optimisation (Schulman et al. 2017) over whole sequences.

Letters: N sequences of a rollout, S steps of one; r ratio of an action's probability now to that when it was taken, A advantage, V the
critic's answer now and V' when acting, R = A + V' its target.

    policy_loss = -mean(min(r A, clip(r, 1 - c, 1 + c) A))               c = clip_range
    value_loss = mean((V - R)^2) / 2                                     with clip_range_vf v the larger of that and of clip(V, V' - v, V' + v)
    loss = policy_loss + vf_coef value_loss - ent_coef entropy

Every minibatch reads its sequences from the states that the network carried when it acted, so that before the first step r is 1. A network
with dropout acts without it and learns with it, as in Stable-Baselines3 (`set_training_mode`): then r is 1 only on average of the masks, and
the clip also bounds what a mask alone does to it. Dropout while acting would make r no nearer to 1, the masks being others, and the rewards worse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import learners
from pipeline.learners import parallel
from pipeline.learners.acting import Acting, Judged, Losses, normalised, value_loss
from pipeline.learners.rollout import Sequences
from pipeline.storage.rng import derive_key, generator


class PPO(Acting):
    """Several passes over each rollout in minibatches of whole sequences."""

    config: learners.Ppo

    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Pass over a rollout, until the policy has moved by `target_kl` where that is set."""
        chance = generator(derive_key("minibatches", self.seed, self.steps, *parallel.ordinal()))
        found: list[dict[str, Tensor]] = []
        for _ in range(self.config.update_epochs):
            order_N = torch.from_numpy(chance.permutation(len(sequences.reset_NS))).to(self.device)
            found += [self._step(part) for part in sequences.in_order(order_N).split(self.config.num_minibatches)]
            if self.config.target_kl and self._moved(found) > self.config.target_kl:
                break
        return {name: torch.stack([figures[name] for figures in found]).mean() for name in found[0]}

    def _moved(self, found: list[dict[str, Tensor]]) -> float:
        """How far the policy had moved over the last pass, in nats; waits for the device."""
        moved = torch.stack([figures["approximate_kl"] for figures in found[-self.config.num_minibatches :]]).mean()
        parallel.average([moved])
        return float(moved)

    def _step(self, part: Sequences) -> dict[str, Tensor]:
        judged = self.judge(part)
        log_ratio_NS = judged.log_probability_NS - part.log_probability_NS
        ratio_NS = log_ratio_NS.exp()
        figures = self.descend(self.losses(part, judged, ratio_NS))
        with torch.no_grad():
            clipped = ((ratio_NS - 1).abs() > self.config.clip_range).float().mean()
            return {**figures, "clip_fraction": clipped, "approximate_kl": approximate_kl(log_ratio_NS)}

    def losses(self, part: Sequences, judged: Judged, ratio_NS: Tensor) -> Losses:
        """The three parts of the loss of a minibatch."""
        advantage_NS = normalised(part.advantage_NS, self.config.normalize_advantage)
        clip, reach = self.config.clip_range, self.config.clip_range_vf
        policy = -torch.minimum(ratio_NS * advantage_NS, ratio_NS.clamp(1 - clip, 1 + clip) * advantage_NS).mean()
        target_NS = part.advantage_NS + part.value_NS
        if reach is None:
            value = value_loss(judged.value_NS, target_NS)
        else:
            near_NS = part.value_NS + (judged.value_NS - part.value_NS).clamp(-reach, reach)
            value = 0.5 * torch.maximum((judged.value_NS - target_NS).square(), (near_NS - target_NS).square()).mean()
        return Losses(policy, value, judged.entropy_NS.mean())


def approximate_kl(log_ratio_NS: Tensor) -> Tensor:
    """How far the policy has moved, in nats: mean of r - 1 - log r, without a sum of 1 and a small number (Schulman 2020)."""
    return (log_ratio_NS.expm1() - log_ratio_NS).mean()
