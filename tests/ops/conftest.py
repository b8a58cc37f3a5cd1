"""One thread, seeded numbers and, for backend `c`, a compiler: as for the mixers."""

from tests.mixers.conftest import _compiler, _quiet  # noqa: F401
