"""The commands that read and report: check, plan, status, list, show, schema, doctor; and prune."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from pathlib import Path

import click
import pytest

from pipeline.cli import SECTIONS, cli
from pipeline.cli.catalogue import REPOSITORY
from pipeline.config.networks import SequenceNetwork
from pipeline.config.schema import KINDS, schema_text
from pipeline.ops.backends import KNOWN
from pipeline.plan import Plan, plan_file
from pipeline.results_lock import acquire_lock
from tests.cli.conftest import TINY, Call

COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_its_parameters(name: str, call: Call) -> None:
    answer = call(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: pipeline {name}")
    for parameter in cli.commands[name].params:
        written = (
            parameter.opts[0]
            if isinstance(parameter, click.Option)
            else "|".join(getattr(parameter.type, "choices", [])) or str(parameter.name)
        )
        assert written.lower() in answer.out.lower()
    assert call(name, "-h") == answer


def test_the_main_help_lists_every_command_in_full(call: Call) -> None:
    answer = call("--help")
    assert sorted(str(command.name) for commands in SECTIONS.values() for command in commands) == COMMANDS
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", answer.out, re.MULTILINE)
    assert "..." not in answer.out.split("Options:")[1]
    assert "Exit codes: 0 success" in answer.out
    assert call().code == 2


def test_options_with_a_default_show_it(call: Call) -> None:
    assert "[default: config.yaml]" in " ".join(call("try", "--help").out.split())
    assert "[default: 10000; 1<=x<=1000000000]" in " ".join(call("generate", "--help").out.split())


def test_the_version_is_the_package_s(call: Call) -> None:
    assert re.fullmatch(r"pipeline, version \d+\.\d+\.\d+\n", call("--version").out)


def test_check_counts_what_a_config_lists(folder: Path, call: Call) -> None:
    assert call("check") == (0, "config.yaml: OK (1 experiment, 1 run, 3 datasets, 1 network)\n", "")
    (folder / "other.yaml").write_text(TINY.replace("    figures", "    sweep: {seed: [0, 1]}\n    figures"))
    assert call("check", "other.yaml").out == "other.yaml: OK (1 experiment, 2 runs, 3 datasets, 1 network)\n"


def test_plan_names_every_run_and_dataset(folder: Path, call: Call) -> None:
    plan = plan_file(Path("config.yaml"))
    answer = call("plan")
    assert answer.code == 0
    for name in (*plan.runs, *plan.datasets):
        assert name in answer.out
    assert "tiny: Does it work?" in answer.out
    assert "4 steps" in answer.out
    whole = call("plan", "--json").out
    assert Plan.from_json(whole) == plan
    assert json.loads(whole)["runtime"]["device"] == "auto"


@pytest.mark.parametrize(
    ("suite", "line"),
    [
        ("workflow/suites/memory.yaml", r"^copy-gru-s0-\w+ +gru +0 +64 +176,000 rows +-$"),
        ("workflow/suites/control.yaml", r"^t-maze-gru-s0-\w+ +gru +0 +\d+ +[\d,]+ total_timesteps +-$"),
        ("config.yaml", r"^copy-lstm-s0-\w+ +lstm +0 +0\.01 +64 +250G flops = about [\d,]+ rows +-$"),
        ("config.yaml", r"^copy-validation-\w+ +validation +500 +1 +delay log_uniform 1\.\.20$"),
        ("config.yaml", r"^associative-recall-test-\w+ +test +500 +1 +length 16, layout icr$"),
    ],
)
def test_plan_shows_budgets_and_what_datasets_hold(suite: str, line: str, call: Call) -> None:
    answer = call("plan", Path(__file__).parents[2] / suite)
    assert answer.code == 0
    assert re.search(line, answer.out, re.MULTILINE)


@pytest.mark.parametrize(("delay", "budget"), [("5", r"2M flops = [\d,]+ rows"), ("{uniform: [2, 9]}", r"2M flops = about [\d,]+ rows")])
def test_plan_shows_the_rows_of_a_budget_in_flops(delay: str, budget: str, empty: Path, call: Call) -> None:
    (empty / "config.yaml").write_text(TINY.replace("delay: 5", f"delay: {delay}").replace("steps: 4", "flops: 2M"))
    assert re.search(rf"^copy-gru-s0-\w+ +gru +0 +8 +{budget} +-$", call("plan").out, re.MULTILINE)


def test_plan_shows_a_solved_width(empty: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def solved(config: SequenceNetwork, sizes: dict[str, int]) -> SequenceNetwork:
        assert (config.width, config.parameters, sizes) == ("auto", 5000, {"vocabulary": 7, "classes": 4})
        return config.model_copy(update={"width": 27})

    monkeypatch.setattr("pipeline.networks.build.resolve_width", solved)
    (empty / "config.yaml").write_text(TINY.replace("width: 8", "width: auto, parameters: 5k"))
    assert re.search(r"^copy-gru-s0-\w+ +gru +0 +auto = 27 +4 steps +-$", call("plan").out, re.MULTILINE)


@pytest.mark.parametrize("kind", [*KINDS, "presets", "suites"])
def test_list_shows_every_component_of_a_kind(kind: str, call: Call) -> None:
    answer = call("list", kind)
    assert answer.code == 0
    for name in KINDS.get(kind, {}):
        assert re.search(rf"^  {name}  +\w", answer.out, re.MULTILINE)
    whole = call("list").out
    assert answer.out in whole.replace(f"{kind}:\n", "")
    assert f"{kind}:\n" in whole


@pytest.mark.parametrize("name", [name for components in KINDS.values() for name in components])
def test_show_lists_every_field(name: str, call: Call) -> None:
    answer = call("show", name)
    assert answer.code == 0
    for components in KINDS.values():
        for key in components[name].model_fields if name in components else ():
            assert key == "name" or re.search(rf"^  {key}: \S.*\n      \S", answer.out, re.MULTILINE)
    assert "implementation  pipeline." in answer.out
    assert "  \n" not in answer.out


def test_show_lists_nested_fields_and_those_of_evaluate(call: Call) -> None:
    assert re.search(r"^  delay\.log_uniform: null\n      Range \[low, high\]", call("show", "copy").out, re.MULTILINE)
    assert re.search(r"^fields of evaluate:\n.*^  delays: ", call("show", "copy").out, re.MULTILINE | re.DOTALL)
    assert re.search(r"^  curriculum\.column: required$", call("show", "supervised").out, re.MULTILINE)


@pytest.mark.parametrize("kind", ["presets", "suites"])
def test_list_shows_the_whole_first_sentence_of_a_file(kind: str, call: Call) -> None:
    for line in call("list", kind).out.splitlines():
        name, text = line.split(maxsplit=1)
        comment = (REPOSITORY / "workflow" / kind / f"{name}.yaml").read_text(encoding="utf-8").replace("\n# ", " ")
        assert comment.startswith(f"# {text}")
        assert text.endswith(".")


@pytest.mark.parametrize("name", list(KINDS["measurements"]))
def test_show_lists_the_scores_of_a_measurement(name: str, call: Call) -> None:
    table = call("show", name).out.split("scores:\n")[1].splitlines()
    assert table[0].split() == ["name", "unit", "label"]
    rows = {line.split()[0]: line for line in table[1:] if line.startswith("  ")}
    scores = KINDS["measurements"][name].scores  # pyright: ignore[reportAttributeAccessIssue]
    assert {key: rows[key].endswith(score.label) for key, score in scores.items()} == dict.fromkeys(scores, True)
    assert "{" not in "".join(table)


def test_show_prints_a_preset(call: Call) -> None:
    presets = sorted((Path(__file__).parents[2] / "workflow" / "presets").glob("*.yaml"))
    for path in presets[:1]:
        assert call("show", path.stem).out == path.read_text(encoding="utf-8")


def test_schema_is_printed(call: Call) -> None:
    assert call("schema").out == schema_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "mixer"], "list mixer: unknown kind; did you mean 'mixers'?"),
        (
            ["list", "zzz"],
            "list zzz: unknown kind; expected one of figures, learners, measurements, mixers, networks, presets, suites, tasks",
        ),
        (["show", "lstn"], "show lstn: not in the catalogue; did you mean 'lstm'?"),
        (["check"], "config.yaml: no such file; expected a config such as config.yaml"),
        (["plan", "x.yaml"], "x.yaml: no such file; expected a config such as config.yaml"),
        (["status"], "config.yaml: no such file; expected a config such as config.yaml"),
        (["prune"], "config.yaml: no such file; expected a config such as config.yaml"),
        (["chekc"], "pipeline: no such command 'chekc'"),
        (["check", "--verbose"], "pipeline check: no such option '--verbose'; see 'pipeline check --help'"),
        (["check", "a", "b"], "pipeline check: got unexpected extra argument (b); see 'pipeline check --help'"),
        (["show"], "pipeline show: missing argument 'NAME'; see 'pipeline show --help'"),
    ],
)
def test_invalid_input_is_reported_in_one_line(words: list[str], message: str, empty: Path, call: Call) -> None:
    answer = call(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(message)
    assert answer.err.count("\n") == 1
    assert not list(empty.iterdir())


def test_status_of_a_finished_suite(folder: Path, call: Call) -> None:
    (run,) = plan_file(Path("config.yaml")).runs
    answer = call("status")
    assert answer.code == 0
    assert re.search(rf"^{run} +done$", answer.out, re.MULTILINE)
    assert re.search(r"^seal +6/6$", answer.out, re.MULTILINE)
    assert re.search(r"^plot +0/8 +experiments/tiny/\S+ and 7 more$", answer.out, re.MULTILINE)
    assert "a pipeline is running here" not in answer.out


def test_status_gives_the_reason_of_a_run_to_do(folder: Path, call: Call) -> None:
    (run,) = plan_file(Path("config.yaml")).runs
    (folder / "config.yaml").write_text(TINY.replace("width: 8", "width: 12"))
    assert re.search(rf"^copy-gru-s0-\w+ +to do +its config has changed \(earlier: {run}\)$", call("status").out, re.MULTILINE)
    (new,) = plan_file(Path("config.yaml")).runs
    log = folder / "results" / "logs" / "train" / f"{new}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\nthe disk is full\n")
    assert f"{new}  to do   last attempt ended with: the disk is full (see results/logs/train/{new}.log)\n" in call("status").out
    shutil.rmtree(folder / "results")
    assert re.search(rf"^{new} +to do +waiting for copy-train-\w+, copy-validation-\w+$", call("status").out, re.MULTILINE)


def test_status_reports_a_live_pipeline(folder: Path, call: Call) -> None:
    with acquire_lock(Path("results")):
        assert re.search(r"^a pipeline is running here: pid \d+ on \S+ since 20", call("status").out, re.MULTILINE)


def test_reading_commands_write_nothing(folder: Path, call: Call) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for words in (["check"], ["plan"], ["status"], ["prune"], ["list"], ["doctor"]):
        assert call(*words).code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_doctor_finds_damage(folder: Path, call: Call) -> None:
    healthy = call("doctor")
    assert healthy.code == 0
    assert re.search(r"^ok +seals +\d+ sealed files below results, all intact$", healthy.out, re.MULTILINE)
    assert "PROBLEM" not in healthy.out
    shard = sorted(folder.glob("results/datasets/copy-train-*/00000.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    sick = call("doctor")
    assert sick.code == 2
    assert re.search(r"^PROBLEM +seals +\d+ sealed files below results; 1 damaged, missing or not sealed$", sick.out, re.MULTILINE)
    assert re.search(r"^PROBLEM +seals +results/datasets/copy-train-\w+/00000\.parquet: ", sick.out, re.MULTILINE)


def test_doctor_in_an_empty_folder(empty: Path, call: Call) -> None:
    answer = call("doctor")
    assert answer.code == 0
    assert re.search(r"^ok +owner +no pipeline is running here$", answer.out, re.MULTILINE)
    assert not list(empty.iterdir())


def test_doctor_tries_every_backend(empty: Path, call: Call) -> None:
    answer = call("doctor")
    assert [name for name in KNOWN if re.search(rf"^ok +backend {name} ", answer.out, re.MULTILINE)] == list(KNOWN[2:])
    assert KNOWN[:2] == ("auto", "torch")


def test_prune_deletes_what_no_suite_lists(folder: Path, call: Call) -> None:
    assert call("prune").out == "nothing to delete\n"
    (folder / "config.yaml").write_text(TINY.replace("width: 8", "width: 12"))
    plan = plan_file(Path("config.yaml"))
    listed = call("prune")
    stale = {Path(line.split()[-1]) for line in listed.out.splitlines() if line.startswith("would delete")}
    assert {path.parent.name for path in stale} == {"runs", "checkpoints", "evaluations", "profiles"}
    assert all(path.exists() for path in stale)
    assert listed.out.endswith("run with --yes to delete\n")
    (folder / "old.yaml").write_text(TINY)
    assert call("prune", "--also", "old.yaml").out == "nothing to delete\n"
    with acquire_lock(Path("results")):
        assert "another pipeline is running here" in call("prune", "--yes").err
        assert all(path.exists() for path in stale)
    assert call("prune", "--yes").code == 0
    assert not any(path.exists() for path in stale)
    assert all((folder / "results" / "datasets" / name).exists() for name in plan.datasets)
    assert (folder / "results" / "experiments" / "tiny").exists()
    assert call("prune").out == "nothing to delete\n"


def test_prune_refuses_to_delete_a_run_that_is_being_trained(folder: Path, call: Call) -> None:
    (run,) = plan_file(Path("config.yaml")).runs
    (folder / "config.yaml").write_text(TINY.replace("width: 8", "width: 12"))
    lease = folder / "results" / "checkpoints" / run
    (lease / "lease.json").write_text("{}")
    with (lease / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = call("prune", "--yes")
    assert answer.code == 2
    assert answer.err == f"results/runs/{run}: being trained right now; stop its job first\n"
    assert lease.exists()
