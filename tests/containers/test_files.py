"""The container files, without building the image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINERS = REPOSITORY / "containers"


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock."""
    return versions_in(CONTAINERS / name)


def versions_in(path: Path) -> dict[str, str]:
    """Package -> version of a file of requirements; names as PyPI compares them."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[._]", "-", package.lower()): version for package, version in found}


@pytest.mark.parametrize("name", ["cpu.lock", "cuda.lock", "kernels.lock"])
def test_everything_in_a_lock_has_a_digest(name: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", (CONTAINERS / name).read_text(), flags=re.MULTILINE)
    packages = [entry for entry in entries if "==" in entry]
    assert packages
    assert not [entry for entry in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]


@pytest.mark.parametrize("name", ["cpu.lock", "cuda.lock"])
def test_a_lock_has_the_packages_dependencies_in_the_tested_versions(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[=<>;\[ ]", line)[0].lower().replace(".", "-") for line in project["dependencies"]}
    versions = locked(name)
    assert wanted <= versions.keys()
    constraints = (REPOSITORY / "constraints.txt").read_text()
    tested = {package: f"{package}=={versions[package].partition('+')[0]}" for package in wanted}
    differing = {package for package, line in tested.items() if not re.search(rf"^{re.escape(line)}(?![\w.])", constraints, re.MULTILINE)}
    assert differing <= {"torch"}
    assert (differing == set()) == (name == "cpu.lock")


def test_the_cuda_kernels_are_compiled_with_the_torch_they_are_known_to_compile_with() -> None:
    assert locked("cuda.lock")["torch"] == "2.11.0"
    assert locked("kernels.lock").keys() == {"causal-conv1d", "mamba-ssm"}


def test_actions_are_pinned_by_commit_and_may_only_read() -> None:
    for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        uses = re.findall(r"uses: (\S+)", text)
        assert uses
        assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in uses)
        assert re.findall(r"permissions: (.*)", text) == ["{contents: read}"]
