"""Code that changed after a training: reported, refused, and retrained on request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config.code import changed, code_of
from pipeline.config.mixers import MIXERS
from pipeline.plan import Plan
from pipeline.retrain import changed_code_report, changed_runs, plan_deletion, select_runs
from pipeline.storage.digest import file_sha256
from pipeline.storage.errors import BusyError, ChangedCodeError, UserError
from pipeline.storage.manifest import MANIFEST, seal, verify
from pipeline.storage.seals import write_sealed
from pipeline.training.lease import Lease
from pipeline.training.stamp import Stamp
from tests.training.tiny import describe, tiny_plan, train_tiny

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = '''
from typing import ClassVar, Literal
from pipeline.config.mixers import Mixer

class Gate(Mixer):
    """A gate at every position."""
    implementation: ClassVar[str] = "recurlab_gate.gate:Gate"
    name: Literal["gate"] = "gate"
'''
GATE = """
from torch import nn
from pipeline.mixers.none import NoMixer

class Gate(NoMixer):
    def __init__(self, config, width):
        super().__init__(config, width)
        self.map = nn.Linear(width, width)

    def forward(self, x_BTD, state=None, reset_BT=None, length_B=None):
        return nn.functional.silu(self.map(x_BTD)), ()

    def step(self, x_BD, state, active_B=None):
        return nn.functional.silu(self.map(x_BD)), ()
"""
CONFIG = """\
experiments:
  first:
    base:
      task: {{name: copy, symbols: 2, delay: 3, alphabet: 4}}
      network: {{name: sequence, mixer: {mixer}, width: 8}}
      learner: {{name: supervised, steps: 4, batch_size: 4, validation_rows: 8}}
      evaluate: {{rows: 8}}
"""
SESSION = """\
import contextlib, io, json, sys
from pipeline.cli import main
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["pipeline", *words]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = end.code
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""
CHAIN = """\
import sys
from pathlib import Path
from pipeline.in_process import run_plan
from pipeline.plan import plan_file
print(run_plan(plan_file(Path("config.yaml")), Path(sys.argv[1])))
"""


class Desk:
    """A folder with a config of one run, and code of its user's: a plug-in, or a checkout of this package."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.site = folder / "work", folder / "site"
        self.folder.mkdir()
        if kind == "plug-in":
            write_plugin(self.site)
            self.mixer, self.file, self.edit = "gate", "recurlab_gate/gate.py", ("silu", "tanh")
        else:
            shutil.copytree(REPOSITORY / "pipeline", self.site / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
            self.mixer, self.file, self.edit = "gru_v1", "pipeline/mixers/gru_v1.py", ("torch.tanh", "torch.sin")
        (self.folder / "config.yaml").write_text(CONFIG.format(mixer=self.mixer))

    def python(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Call Python where this code comes first."""
        environment = {**os.environ, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False)

    def pipeline(self, *commands: tuple[str | Path, ...]) -> list[tuple[int, str]]:
        """Call `pipeline` several times in one process: what each call ended with and said."""
        done = self.python("-c", SESSION, json.dumps([[str(word) for word in words] for words in commands]))
        assert done.returncode == 0, done.stderr
        return [(code, said) for code, said in json.loads(done.stdout)]

    def chain(self, results: str = "results") -> None:
        """Make everything that the config asks for."""
        done = self.python("-c", CHAIN, results)
        assert done.returncode == 0, done.stderr

    def change(self) -> None:
        """Edit the mixer's code."""
        path, (before, after) = self.site / self.file, self.edit
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def run(self, results: str = "results") -> Path:
        """The folder of the one run."""
        (found,) = (self.folder / results / "runs").iterdir()
        return found

    def weights(self, results: str = "results") -> str:
        """What the one run learned."""
        return file_sha256(self.run(results) / "model" / "model.safetensors")


def write_plugin(site: Path) -> None:
    """A mixer as pip leaves it in site-packages."""
    info, package = site / "recurlab_gate-0.3.1.dist-info", site / "recurlab_gate"
    info.mkdir(parents=True)
    package.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: recurlab-gate\nVersion: 0.3.1\n")
    (info / "entry_points.txt").write_text("[recurlab.mixers]\ngate = recurlab_gate.page:Gate\n")
    (package / "__init__.py").touch()
    (package / "page.py").write_text(PAGE)
    (package / "gate.py").write_text(GATE)


@pytest.mark.parametrize("kind", ["plug-in", "own"])
def test_changed_code_is_reported_and_refused_until_retrained(kind: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, kind)
    desk.chain()
    run, old = desk.run(), desk.weights()
    data = next((desk.folder / "results/datasets").glob("copy-test-*"))
    table = desk.folder / "table.parquet"
    measure, train = ("evaluate", run / "run.yaml", "--data", data, "--out", table), ("train", run / "run.yaml")
    said = f"code changed since 1 run was trained: mixer {desk.mixer}: {desk.file}\n"
    refused = f"by other code, changed since: mixer {desk.mixer} ({desk.file}); 'pipeline retrain {run.name}' deletes it"
    assert said not in desk.pipeline(("status",))[0][1]
    desk.change()

    status, check, evaluated, trained = desk.pipeline(("status",), ("check",), measure, train)
    assert said in status[1] and said in check[1] and (status[0], check[0]) == (0, 0)
    for code, line in (evaluated, trained):
        assert code == 2 and refused in line and line.count("\n") == 1
    assert not table.exists()

    for path in (run / "manifest.json", run / "model" / "model.safetensors"):
        path.unlink()
    assert desk.pipeline(train)[0][0] == 2, "the old result must not come back"
    assert not (run / "model" / "model.safetensors").exists()
    allowed = desk.pipeline((*train, "--allow-changed-code"), (*measure, "--allow-changed-code"), ("retrain", "first"))
    assert [code for code, _ in allowed] == [0, 0, 0]
    assert all("trained by other code" in line for _, line in allowed[:2])
    note = json.loads(pq.read_schema(table).metadata[b"code"])
    assert set(note) == {f"mixer {desk.mixer}", "network sequence", "task copy", "measurement tokens"}
    assert f"would delete  {run.name}\n" in allowed[2][1]
    assert desk.weights() == old, "put back because it was asked for, and without --yes nothing is deleted"
    loaded = desk.python("-c", "import sys; from pipeline import load_run; load_run(sys.argv[1]).network()", run.name)
    assert f"ChangedCodeError: {run}: trained {refused}" in loaded.stderr

    assert desk.pipeline(("retrain", "--changed", "--yes"))[0][1].splitlines() == [
        f"deleted  {run.name}",
        "deleted  with them 1 evaluation, 1 profile",
        "to be updated: tables and figures of first",
        "the next snakemake trains them again",
    ]
    assert sorted(path.name for path in run.iterdir()) == [".run.yaml.sha256", "run.yaml"]
    desk.chain()
    desk.chain("fresh")
    assert desk.weights() == desk.weights("fresh") != old
    assert "code changed" not in desk.pipeline(("status",))[0][1]
    environment = json.loads((run / "environment.json").read_text())
    if kind == "plug-in":
        package = {"package": "recurlab-gate", "version": "0.3.1", "commit": None, "path": str(desk.site / "recurlab_gate")}
        assert environment["plugins"] == [package]
    else:
        assert (environment["plugins"], environment["recurlab"]["path"]) == ([], str(desk.site / "pipeline"))


def test_the_commit_of_a_plugin_is_that_of_its_own_repository(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "plug-in")
    words = "import json; from pipeline.training.packages import plugins; print(json.dumps(plugins()))"
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / ".gitignore").write_text("site\nwork\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "all"], check=True)
    assert json.loads(desk.python("-c", words).stdout)[0]["commit"] is None, "a repository around it that does not hold it"
    subprocess.run([*git, "add", "--force", "site"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "code"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert json.loads(desk.python("-c", words).stdout)[0]["commit"] == commit
    desk.change()
    assert json.loads(desk.python("-c", words).stdout)[0]["commit"] == f"{commit}+"


def forge(folder: Path, component: str = "mixer lru") -> None:
    """Reseal a folder as if one file of a component had been another when it was made."""
    manifest = verify(folder)
    code = manifest["code"]
    code[component] = {name: "0" * 16 if index == 0 else digest for index, (name, digest) in enumerate(code[component].items())}
    extra = {key: value for key, value in manifest.items() if key not in ("files", "format", "digest")}
    seal(folder, manifest["files"], {**extra, "code": code})


def test_a_checkpoint_of_other_code_is_resumed_only_if_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(steps=6)
    run = describe(plan, tmp_path)
    stopped = "tests.training.tiny"
    code = f"import os, signal, sys; from pipeline.training import fit; from {stopped} import train_tiny; from pathlib import Path\n"
    code += "step = fit.Fit._step\n"
    code += "fit.Fit._step = lambda self: (step(self), self.learner.steps == 3 and os.kill(os.getpid(), signal.SIGTERM))\n"
    code += "sys.exit(train_tiny(Path(sys.argv[1]), sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), run], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 75, done.stderr
    (checkpoint,) = (tmp_path / "checkpoints" / run).glob("step-*")
    forge(checkpoint)
    assert list(changed_runs(tmp_path, plan)) == [run]
    with pytest.raises(ChangedCodeError, match=rf"{checkpoint.name}: trained by other code.*mixer lru .*pipeline retrain"):
        train_tiny(tmp_path, run)
    assert checkpoint.exists()
    assert train_tiny(tmp_path, run, changed_code="allow") == 0
    recorded = verify(tmp_path / "runs" / run)["code"]
    assert list(changed(recorded, code_of(MIXERS["lru"](name="lru")))) == ["mixer lru"], "it is marked as made by both"
    assert list(changed_runs(tmp_path, plan)) == [run]


def test_data_of_other_code_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan(steps=2)
    run = describe(plan, tmp_path)
    data = next((tmp_path / "datasets").glob("copy-train-*"))
    forge(data, "task copy")
    with pytest.raises(
        ChangedCodeError, match=rf"{data.name}: made by other code, changed since: task copy .*; delete it to have it made again"
    ):
        train_tiny(tmp_path, run)
    assert "code changed since 1 dataset was generated: task copy" in "\n".join(changed_code_report(tmp_path, plan))
    assert plan_deletion(tmp_path, plan, [run]).datasets == [data.name]
    assert train_tiny(tmp_path, run, changed_code="allow") == 0


def test_a_child_is_deleted_with_its_parent(tmp_path: Path) -> None:
    parent = describe(tiny_plan(steps=2), tmp_path)
    assert train_tiny(tmp_path, parent) == 0
    child = describe(tiny_plan(steps=2, seed=3), tmp_path)
    spec = tmp_path / "runs" / child / "run.yaml"
    write_sealed(spec, spec.read_text().replace("parent: null", f"parent: {parent}").replace("parent:\n", f"parent: {parent}\n"))
    assert train_tiny(tmp_path, child) == 0
    assert plan_deletion(tmp_path, Plan(), [parent]).children == [child]
    weights = tmp_path / "runs" / parent / "model" / "model.safetensors"
    manifest = json.loads((weights.parents[1] / MANIFEST).read_text())
    weights.write_bytes(weights.read_bytes() + b" ")
    seal(weights.parents[1], manifest["files"], {key: manifest[key] for key in ("spec", "code")})
    with pytest.raises(ChangedCodeError, match=rf"parent {parent} \(model/model.safetensors\)"):
        train_tiny(tmp_path, child)


def test_a_run_that_is_being_trained_is_not_deleted(tmp_path: Path) -> None:
    plan = tiny_plan(steps=2)
    run = describe(plan, tmp_path)
    assert train_tiny(tmp_path, run) == 0
    lease = Lease(tmp_path / "checkpoints" / run)
    assert lease.acquire()
    try:
        with pytest.raises(BusyError, match=f"{run}: being trained by pid {os.getpid()}"):
            plan_deletion(tmp_path, plan, [run]).delete()
    finally:
        lease.release()
    verify(tmp_path / "runs" / run)


def test_runs_are_selected_by_identifier_pattern_or_experiment(tmp_path: Path) -> None:
    plan = tiny_plan(steps=2)
    run = describe(plan, tmp_path)
    assert train_tiny(tmp_path, run) == 0
    for word in (run, "copy-lru-*", "tiny"):
        assert select_runs(tmp_path, plan, [word]) == [run]
    with pytest.raises(UserError, match=f"retrain {run[:-1]}x: no trained run or experiment of .*; did you mean '{run}'"):
        select_runs(tmp_path, plan, [f"{run[:-1]}x"])


def test_a_stamp_of_another_spec_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belongs to specification 111111111111"):
        Stamp("0" * 64).check(tmp_path / "run" / "finished", {"spec": "1" * 64})
