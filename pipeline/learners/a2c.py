"""Advantage actor-critic (Mnih et al. 2016), synchronous: one policy-gradient step per rollout, with the whole rollout as batch.

    policy_loss = -mean(A log pi(a))
    value_loss = mean((V - R)^2) / 2          R = A + V_old, and V_old = V before the step

`vf_coef: 1` corresponds to 0.5 in the public code for control tasks, whose value loss lacks the factor 1/2.

Notation: A = advantage, V = value.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.config import learners
from pipeline.learners.on_policy import OnPolicy, mse_value_loss, normalized
from pipeline.learners.rollout import Sequences


class A2C(OnPolicy):
    """One optimizer step per rollout."""

    config: learners.A2c

    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """Take one optimizer step on the whole rollout."""
        new = self.evaluate_actions(sequences)
        advantage_NS = normalized(sequences.advantage_NS) if self.config.normalize_advantage else sequences.advantage_NS
        policy_loss = -(advantage_NS * new.log_probability_NS).mean()
        value_loss = mse_value_loss(new.value_NS, sequences.advantage_NS + sequences.value_NS)
        return self.step(policy_loss, value_loss, new.entropy_NS.mean())
