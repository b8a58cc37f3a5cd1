"""How hypothesis draws its examples: the same ones in every run, and without a clock, since machines are slow at times."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("recurlab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("recurlab")
