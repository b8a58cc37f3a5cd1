"""The CPU image: what is in it and what is not, and the tiny suite in it with the network cut and a read-only root, bit by bit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.suite import BINARIES, REPOSITORY, Suite, made_once, tiny

pytestmark = pytest.mark.container

NO_NETWORK = ("unshare", "--net")
LARGEST = 0.9e9
SECRETS = ("token", "password", "secret", "id_rsa", ".netrc", "pip.conf", "credentials")


def inside(sif: Path, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command in the image as an ordinary user would call it, with nothing of this machine but the folder."""
    place = ["--bind", f"{folder}:/data", "--pwd", "/data"] if folder else []
    command = ["apptainer", "--silent", "exec", "--containall", "--no-home", *place, str(sif), *words]
    return subprocess.run([*NO_NETWORK, *command], capture_output=True, text=True, timeout=600, check=False)


def config(container: Path | str) -> dict[str, Any]:
    """The tiny suite with a mixer whose kernel is compiled C, in an image."""
    made = tiny()
    made["experiments"]["first"]["sweep"]["network.mixer"] = ["gru", "lru"]
    made["runtime"] = {"container": str(container)}
    return made


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The same suite, run outside of it."""
    return made_once(tmp_path_factory, "native", config("unused"))[0]


def test_the_image_has_no_build_tools_and_no_secrets(sif: Path) -> None:
    for tool in ("gcc", "cc", "g++", "clang", "make", "ld", "git", "nvcc"):
        assert inside(sif, "sh", "-c", f"command -v {tool}").returncode == 127, tool
    assert inside(sif, "sh", "-c", "command -v pipeline").stdout == "/opt/recurlab/venv/bin/pipeline\n"
    assert inside(sif, "python", "-m", "pip").returncode == 1
    names = inside(
        sif, "find", "/", "-xdev", "-type", "f", "-size", "+0", "-not", "-path", "/proc/*", "-not", "-path", "*/site-packages/*"
    ).stdout.split("\n")
    assert len(names) > 1000
    outside_of_system = [
        name
        for name in names
        if not name.startswith(
            ("/usr/", "/var/lib/dpkg", "/var/lib/pam", "/var/cache/debconf", "/etc/pam", "/etc/login", "/opt/recurlab/venv/lib")
        )
    ]
    own = {f"/opt/recurlab/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "pipeline").rglob("*.py")}
    others = [name for name in outside_of_system if name not in own and "__pycache__" not in name]
    assert not [name for name in others if any(word in name.lower() for word in SECRETS)]


def test_the_images_size_labels_and_user(sif: Path) -> None:
    size = sif.stat().st_size
    print(f"SIF: {size / 1e9:.2f} GB")
    assert size < LARGEST
    answer = subprocess.run(["apptainer", "inspect", "--json", str(sif)], capture_output=True, text=True, check=True)
    labels = json.loads(answer.stdout)["data"]["attributes"]["labels"]
    assert labels["recurlab.image"].startswith("sha256:")
    assert labels["org.opencontainers.image.title"] == "Recurlab"
    assert len(labels["org.opencontainers.image.revision"].rstrip("+")) == 40
    image = json.loads(subprocess.run(["buildah", "inspect", "--type", "image", "recurlab:ci"], capture_output=True, check=True).stdout)
    assert image["OCIv1"]["config"]["User"] == "1000:1000"


def test_doctor_passes_in_the_image(sif: Path, tmp_path: Path) -> None:
    answer = inside(sif, "pipeline", "doctor", folder=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "PROBLEM" not in answer.stdout
    assert re.search(r"^ok +backend c +agrees with torch: .*\blru\b", answer.stdout, re.MULTILINE)
    assert "using the compiled libraries in /opt/recurlab/native" in answer.stdout


def in_image(folder: Path, sif: Path) -> Suite:
    """A suite whose jobs run in the image: its root read-only, as a SIF's always is, and no network."""
    suite = Suite(folder, config(sif))
    real = suite.command
    suite.command = lambda *words: [*NO_NETWORK, *real("--sdm", "apptainer", *words)]  # pyright: ignore[reportAttributeAccessIssue]
    return suite


def test_every_stage_in_the_image_is_the_same_bytes(sif: Path, native: Suite, tmp_path: Path) -> None:
    suite = in_image(tmp_path, sif)
    suite.run()
    assert suite.digests() == native.digests()
    assert not suite.planned()
    for path in suite.results.glob("runs/*/environment.json"):
        environment = json.loads(path.read_text())
        assert environment["container"] == str(sif)
        assert environment["image"].startswith("sha256:")
        assert environment["recurlab"]["commit"]
        assert environment["backends"].get("lru", ["c"]) == ["c"]


def test_the_whole_workflow_in_one_container_is_the_same_bytes(sif: Path, native: Suite, tmp_path: Path) -> None:
    suite = Suite(tmp_path, config("unused"))
    answer = inside(sif, "snakemake", "--snakefile", "/opt/recurlab/Snakefile", "--cores", "2", folder=tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert suite.digests() == native.digests()


def test_the_documented_docker_command_is_the_same_bytes(docker: str, native: Suite, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "containers.md").read_text()
    (command,) = re.findall(r"^docker run [^`]* snakemake [^`]*$", page, re.MULTILINE)
    suite = Suite(tmp_path, config("unused"))
    answer = subprocess.run(
        ["bash", "-c", command.replace("recurlab:cpu", docker)], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert suite.digests() == native.digests()


def test_a_missing_image_and_a_missing_apptainer_are_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite(tmp_path, config("nowhere.sif"))
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("python", "snakemake", "bash", "sh", "which"):
        found = BINARIES / name if (BINARIES / name).exists() else Path(str(shutil.which(name)))
        (bare / name).symlink_to(found)
    code, output = suite.call("--sdm", "apptainer", PATH=str(bare))
    assert code == 2
    assert output.splitlines()[-1] == "apptainer: not on PATH; install it, or run without --sdm apptainer"
    (bare / "apptainer").symlink_to("/bin/true")
    code, output = suite.call("--sdm", "apptainer", PATH=str(bare))
    assert code == 2
    assert output.splitlines()[-1] == "runtime.container: nowhere.sif: no such image; 'make sif' builds containers/recurlab.sif"
    assert not suite.results.exists()
