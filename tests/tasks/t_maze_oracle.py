"""The T-Maze once more, one copy, in plain Python, as a person would write it down from its description."""

from __future__ import annotations

from typing import Any

WORD = 2**64


def noise(seed: int, step: int, bits: int) -> list[int]:
    """Low bits of the output `step` (from 1) of SplitMix64, lowest first."""
    value = (seed + step * 0x9E3779B97F4A7C15) % WORD
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % WORD
    value ^= value >> 31
    return [value >> bit & 1 for bit in range(bits)]


def gray(number: int, bits: int) -> list[int]:
    """The binary-reflected code, highest bit first, built by reflection."""
    codes: list[list[int]] = [[]]
    for _ in range(bits):
        codes = [[0, *code] for code in codes] + [[1, *code] for code in reversed(codes)]
    return codes[number]


class Maze:
    """One episode."""

    def __init__(self, config: Any, corridor: int, cue: int, seed: int) -> None:
        self.config, self.corridor, self.cue, self.seed = config, corridor, cue, seed
        self.position = self.step = 0

    def see(self) -> list[int]:
        """The observation now."""
        random = noise(self.seed, self.step, self.config.distractors) if self.step else [0] * self.config.distractors
        if self.config.form == "bakker":
            code = "110" if self.cue else "011"
            if self.step:
                code = "010" if self.position == self.corridor - 1 else "101"
            return [*map(int, code), *random]
        cue = [0, 0] if self.step else [1, 0] if self.cue else [0, 1]
        return [*cue, *gray(self.position, self.config.bits), *random]

    def act(self, action: int) -> tuple[float, bool, bool, bool]:
        """Reward, whether the episode ended by a turn, or by the limit, and whether the turn was right."""
        self.step += 1
        late = self.step == self.config.max_episode_steps
        junction = self.position == self.corridor - 1
        if junction and action in (0, 1):
            right = action == self.cue
            return (4.0 if right else -1.0), True, False, right
        if junction and not self.config.allow_leave_junction:
            return -0.1, False, late, False
        if action == 2 and self.position > 0:
            self.position -= 1
        if action == 3 and not junction:
            self.position += 1
        return -0.1, False, late, False
