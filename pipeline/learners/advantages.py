"""How much better an action turned out than the critic expected: generalised advantages (Schulman et al. 2016).

Letters: T time, B copies of the environment.

    e_t = r_t + discount V'_t - V_t             V' is what is expected after the step: nothing where the episode has ended
    A_t = e_t + discount lambda A_{t+1}         the sum stops where an episode does, also where it was only cut off
"""

from __future__ import annotations

import torch
from torch import Tensor


def advantages(reward_TB: Tensor, value_TB: Tensor, next_value_TB: Tensor, done_TB: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Advantages (T, B) of a rollout; with the values added they are the critic's targets.

    next_value_TB: the critic's answer to what is seen after each step; to the last observation where the time limit cut the episode off,
    zero where it ended. done_TB (bool): the episode ended or was cut off at this step.
    """
    error_TB = reward_TB + discount * next_value_TB - value_TB
    carried_TB = discount * gae_lambda * ~done_TB
    found, later_B = [], torch.zeros_like(value_TB[0])
    for error_B, carried_B in zip(reversed(error_TB), reversed(carried_TB), strict=True):
        later_B = error_B + carried_B * later_B
        found.append(later_B)
    return torch.stack(found[::-1])


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Share of the targets' variance that the critic's answers explain: 1 for a perfect critic, 0 for a constant, negative for worse."""
    if target.numel() < 2:
        return target.new_zeros(())
    variance = target.var()
    return torch.where(variance > 0, 1 - (target - value).var() / variance.clamp(min=1e-12), 0.0)


def deviation(values: Tensor) -> Tensor:
    """Standard deviation of a sample; zero for a single number."""
    return values.std() if values.numel() > 1 else values.new_zeros(())
