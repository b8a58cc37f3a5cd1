"""Random generators named by what they are for.

A key is the SHA-256 of its parts, so two purposes never share a stream of numbers and no seed is ever made by adding to another.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.storage.digest import canonical_json

Key = tuple[int, ...]


def derive_key(*parts: str | int | None) -> Key:
    """Eight 32-bit words that stand for these parts, in this order."""
    data = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return tuple(np.frombuffer(data, dtype="<u4").tolist())


def generator(key: Key) -> np.random.Generator:
    """The counter-based generator (Philox) of a key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
