"""How a backend is chosen, and what is remembered of it."""

from __future__ import annotations

import pytest

from pipeline.ops import backends
from pipeline.storage.errors import UserError


def able() -> None:
    """No reason against it."""


def unable() -> str:
    """A reason."""
    return "no compiler"


@pytest.fixture(autouse=True)
def _nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_used", {})


def test_auto_takes_the_first_that_can() -> None:
    assert backends.choose("scan", {"c": able, "torch": able}) == "c"
    assert backends.choose("scan", {"c": unable, "torch": able}) == "torch"
    assert backends.used() == {"scan": ["c", "torch"]}


def test_an_argument_outranks_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "torch")
    assert backends.choose("scan", {"c": able, "torch": able}) == "torch"
    assert backends.choose("scan", {"c": able, "torch": able}, "c") == "c"
    assert backends.choose("scan", {"c": able, "torch": able}, "auto") == "c"


def test_the_variable_concerns_operations_that_have_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "c")
    assert backends.choose("gates", {"torch": able}) == "torch"
    with pytest.raises(UserError, match="gates: has no backend c; expected one of auto, torch"):
        backends.choose("gates", {"torch": able}, "c")


@pytest.mark.parametrize("explicit", [None, "c"])
def test_what_was_asked_for_and_cannot_serve_is_an_error(explicit: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "c")
    with pytest.raises(UserError, match=r"^scan: backend c is not available: no compiler; install it, or use backend: auto or torch$"):
        backends.choose("scan", {"c": unable, "torch": able}, explicit)
    assert backends.used() == {}


def test_an_unknown_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="backend: got cuda; expected one of auto, torch, c"):
        backends.choose("scan", {"torch": able}, "cuda")
    monkeypatch.setenv(backends.VARIABLE, "fast")
    with pytest.raises(UserError, match="RECURLAB_BACKEND: got fast; expected one of auto, torch, c"):
        backends.choose("scan", {"torch": able})
