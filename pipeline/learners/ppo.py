"""Proximal policy optimization (Schulman et al. 2017) over whole sequences; see `pipeline.learners.on_policy` for advantages and the total loss.

    ratio = pi(a) / pi_old(a)
    policy_loss = -mean(min(ratio A, clip(ratio, 1 - clip_range, 1 + clip_range) A))
    value_loss = mean((V - R)^2) / 2          R = A + V_old; with clip_range_vf v, the maximum of it and the same for clip(V, V_old - v, V_old + v)

Every minibatch starts its sequences from the states that the network had while acting, so before the first step the ratio is 1. A network with
dropout acts without it and learns with it, as in Stable-Baselines3 (`set_training_mode`): the ratio is then 1 only on average over the masks,
and clipping also bounds the effect of a mask. Dropout while acting would not bring the ratio closer to 1, since the masks would differ.

Notation: N = sequences of a rollout, S = steps of one; A = advantage, V = value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import learners
from pipeline.learners import parallel
from pipeline.learners.on_policy import OnPolicy, mse_value_loss, normalized
from pipeline.learners.rollout import Sequences
from pipeline.storage.rng import derive_key, generator


class PPO(OnPolicy):
    """Several epochs of minibatch updates per rollout, in minibatches of whole sequences."""

    config: learners.Ppo

    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Update for `update_epochs`, or until the approximate KL divergence exceeds `target_kl`."""
        random = generator(derive_key("minibatches", self.seed, self.steps, *parallel.rank_suffix()))
        steps: list[dict[str, Tensor]] = []
        for epoch in range(self.config.update_epochs):
            self.passes = epoch + 1
            order_N = torch.from_numpy(random.permutation(len(sequences.reset_NS))).to(self.device)
            minibatches = sequences.in_order(order_N).split(self.config.num_minibatches)
            steps += [self.learn_minibatch(batch) for batch in minibatches]
            if self.config.target_kl:
                kl = torch.stack([metrics["approximate_kl"] for metrics in steps[-len(minibatches) :]]).mean()
                parallel.average([kl])
                if float(kl) > self.config.target_kl:
                    break
        return {name: torch.stack([metrics[name] for metrics in steps]).mean() for name in steps[0]}

    def learn_minibatch(self, batch: Sequences) -> dict[str, Tensor]:
        """Take one optimizer step on a minibatch; returns its metrics."""
        new = self.evaluate_actions(batch)
        log_ratio_NS = new.log_probability_NS - batch.log_probability_NS
        ratio_NS = log_ratio_NS.exp()
        metrics = self.step(self.policy_loss(batch, ratio_NS), self.value_loss(batch, new.value_NS), new.entropy_NS.mean())
        with torch.no_grad():
            clipped = ((ratio_NS - 1).abs() > self.config.clip_range).float().mean()
            return {**metrics, "clip_fraction": clipped, "approximate_kl": approximate_kl(log_ratio_NS)}

    def policy_loss(self, batch: Sequences, ratio_NS: Tensor) -> Tensor:
        """Compute the negated clipped surrogate objective."""
        advantage_NS = normalized(batch.advantage_NS) if self.config.normalize_advantage else batch.advantage_NS
        clip = self.config.clip_range
        return -torch.minimum(ratio_NS * advantage_NS, ratio_NS.clamp(1 - clip, 1 + clip) * advantage_NS).mean()

    def value_loss(self, batch: Sequences, value_NS: Tensor) -> Tensor:
        """Compute the critic's loss, clipped if `clip_range_vf` is set."""
        target_NS, clip = batch.advantage_NS + batch.value_NS, self.config.clip_range_vf
        if clip is None:
            return mse_value_loss(value_NS, target_NS)
        clipped_NS = batch.value_NS + (value_NS - batch.value_NS).clamp(-clip, clip)
        return 0.5 * torch.maximum((value_NS - target_NS).square(), (clipped_NS - target_NS).square()).mean()


def approximate_kl(log_ratio_NS: Tensor) -> Tensor:
    """Estimate the KL divergence from the old policy in nats as mean(ratio - 1 - log ratio) (Schulman 2020), without cancellation near 0."""
    return (log_ratio_NS.expm1() - log_ratio_NS).mean()
