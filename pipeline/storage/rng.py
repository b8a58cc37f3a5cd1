"""Random number generators seeded by keys.

A key is the SHA-256 of its parts, so no two purposes share a random stream, and no seed is derived by adding to another.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.storage.digest import canonical_json

Key = tuple[int, ...]


def derive_key(*parts: str | int | None) -> Key:
    """Hash the parts, in this order, to eight 32-bit words."""
    data = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return tuple(np.frombuffer(data, dtype="<u4").tolist())


def generator(key: Key) -> np.random.Generator:
    """Return the counter-based generator (Philox) seeded by a key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
