"""Advantage actor-critic (Mnih et al. 2016) in its synchronous form: one step of plain policy gradient per rollout.

Letters: N sequences of a rollout, S steps of one; A advantage, V the critic's answer now and V' when acting, which are equal.

    loss = -mean(A log p) + vf_coef mean((V - A - V')^2) / 2 - ent_coef entropy

All of a rollout is one batch. A vf_coef of 1 is the public code's 0.5 for control tasks, which leaves out the half.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.config import learners
from pipeline.learners.acting import Acting, Losses, normalised, value_loss
from pipeline.learners.rollout import Sequences


class A2C(Acting):
    """One optimizer step per rollout."""

    config: learners.A2c

    def learn(self, sequences: Sequences) -> dict[str, Tensor]:
        """The step."""
        judged = self.judge(sequences)
        advantage_NS = normalised(sequences.advantage_NS, self.config.normalize_advantage)
        policy = -(advantage_NS * judged.log_probability_NS).mean()
        value = value_loss(judged.value_NS, sequences.advantage_NS + sequences.value_NS)
        return self.descend(Losses(policy, value, judged.entropy_NS.mean()))
