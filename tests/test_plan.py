"""Identifiers: equal if and only if the spec means the same."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline import plan as planning
from pipeline.config.document import ConfigError, read_text
from pipeline.config.expand import expand
from pipeline.config.mixers import Gru
from pipeline.plan import SHARD_ROWS, Plan, dataset_of, make_plan
from pipeline.storage.digest import digest
from pipeline.storage.errors import UserError
from pipeline.storage.stage_outputs import OUTPUTS

BASE = """\
experiments:
  first:
    question: Why?
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 20]}}
      network: {name: sequence, mixer: lstm, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32, curriculum: {column: delay}}
      evaluate: {rows: 50, delays: [10, 20]}
    sweep: {network.mixer: [lstm, gru], seed: [0, 1]}
    figures: [{name: accuracy_by, column: delay}, {name: cost_quality, title: Cost}]
  second:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 20]}}
      network: {name: sequence, mixer: gru, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32, parent: third}
  third:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 20]}}
      network: {name: sequence, mixer: gru, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32, curriculum: {column: delay}}
      evaluate: {rows: 50, delays: [10, 20]}
"""


def planned(text: str = BASE) -> Plan:
    """The plan of a config text."""
    return make_plan(expand(read_text(text, "c.yaml")))


def things(plan: Plan) -> dict[str, set[str]]:
    """All identifiers by kind, and by content what has a name of the user's."""
    return {
        "datasets": set(plan.datasets),
        "networks": set(plan.networks),
        "runs": set(plan.runs),
        "evaluations": set(plan.evaluations),
        "experiments": {f"{name} {digest(item.spec)}" for name, item in plan.experiments.items()},
        "figures": {
            f"{name}/{key} {digest(figure.spec)}" for name, item in plan.experiments.items() for key, figure in item.figures.items()
        },
    }


def changes(old: str, new: str, text: str = BASE) -> dict[str, tuple[int, int]]:
    """How many identifiers of each kind went and came; kinds without change are left out."""
    assert text.count(old), old
    before, after = things(planned(text)), things(planned(text.replace(old, new)))
    counts = {kind: (len(before[kind] - after[kind]), len(after[kind] - before[kind])) for kind in before}
    return {kind: count for kind, count in counts.items() if count != (0, 0)}


def test_the_plan_of_a_config() -> None:
    plan = planned()
    assert {kind: len(found) for kind, found in things(plan).items()} == {
        "datasets": 5,
        "networks": 2,
        "runs": 5,
        "evaluations": 5,
        "experiments": 3,
        "figures": 2,
    }
    assert all(name == item.id == item.spec["id"] for found in (plan.datasets, plan.runs) for name, item in found.items())


def test_identifiers_never_change() -> None:
    """These stand in people's results folders: whoever changes them makes everything run again, and says so in the changelog."""
    plan = planned()
    found = {kind: sorted(names) for kind, names in things(plan).items() if kind not in ("experiments", "figures")}
    recorded = json.loads((Path(__file__).parent / "golden" / "identifiers.json").read_text(encoding="utf-8"))
    assert found == recorded


def test_experiments_share_runs_with_equal_specs() -> None:
    plan = planned()
    shared = {run["run"] for run in plan.experiments["first"].spec["runs"]} & {run["run"] for run in plan.experiments["third"].spec["runs"]}
    assert len(shared) == 1
    (run,) = shared
    assert plan.runs[run].spec["network"]["mixer"]["name"] == "gru"
    assert plan.experiments["third"].spec["runs"][0]["evaluation"] in {run["evaluation"] for run in plan.experiments["first"].spec["runs"]}


NEUTRAL = [
    ("seed: [0, 1]", "seed: [1, 0]"),
    ("[lstm, gru]", "[gru, {name: lstm}]"),
    ("rows: 640, batch_size: 32", "batch_size: 3.2e1, rows: 0.64k"),
    (
        "learner: {name: supervised, rows: 640, batch_size: 32, parent",
        "seed: 0\n      learner: {name: supervised, rows: 640, batch_size: 32, parent",
    ),
    ("delays: [10, 20]", "delays: [20, 10]"),
    ("width: 16", "width: 16, depth: 1"),
    (
        "[{name: accuracy_by, column: delay}, {name: cost_quality, title: Cost}]",
        "[{title: Cost, name: cost_quality}, {column: delay, name: accuracy_by}]",
    ),
    ("experiments:", "runtime: {threads: 3}\nexperiments:"),
    ("curriculum: {column: delay}", "curriculum: {factor: 2, column: delay}"),
]


@pytest.mark.parametrize(("old", "new"), NEUTRAL)
def test_a_neutral_edit_changes_nothing(old: str, new: str) -> None:
    assert changes(old, new) == {}


@pytest.mark.parametrize(
    ("runtime", "training", "evaluation"),
    [
        ("{}", {"gpu": 0, "gres": ""}, {"gpu": 0, "gres": ""}),
        ("{gpus: 4}", {"gpu": 4, "gres": ""}, {"gpu": 1, "gres": ""}),
        ("{gpus: 4, nodes: 2}", {"gpu": 0, "gres": "gpu:4"}, {"gpu": 0, "gres": "gpu:4"}),
        ("{nodes: 2}", {"gpu": 0, "gres": ""}, {"gpu": 0, "gres": ""}),
    ],
)
def test_resources_that_jobs_request(runtime: str, training: dict[str, Any], evaluation: dict[str, Any]) -> None:
    plan = planned(f"runtime: {runtime}\n{BASE}")
    assert plan.accelerators() == training
    assert plan.accelerators(most=1) == evaluation


FIRST = "    sweep: {network.mixer: [lstm, gru], seed: [0, 1]}\n"
RUNS = {"runs": (0, 2), "evaluations": (0, 2), "experiments": (1, 1)}
AGAIN = {"networks": (1, 1), "runs": (2, 2), "evaluations": (2, 2), "experiments": (1, 1)}
EDITS: list[tuple[str, str, dict[str, tuple[int, int]]]] = [
    ("Why?", "Why not?", {}),
    ("title: Cost", "title: Price", {"figures": (1, 1)}),
    (", {name: cost_quality, title: Cost}", "", {"figures": (1, 0)}),
    ("[lstm, gru], seed", "[lstm, gru, none], seed", {"networks": (0, 1), **RUNS}),
    ("seed: [0, 1]", "seed: [0, 1, 2]", RUNS),
    (FIRST, FIRST + "    variants: {wide: {network.width: 32}}\n", {"networks": (0, 1), **RUNS}),
    ("[lstm, gru]", "[{name: lstm, init: chrono}, gru]", AGAIN),
    ("parent: third", "parent: third, learning_rate: 0.5", {"runs": (1, 1), "evaluations": (1, 1), "experiments": (1, 1)}),
    ("delays: [10, 20]}\n    sweep", "delays: [10]}\n    sweep", {"evaluations": (3, 4), "experiments": (1, 1)}),
    ("rows: 50, delays: [10, 20]}\n    sweep", "rows: 60}\n    sweep", {"datasets": (0, 1), "evaluations": (3, 4), "experiments": (1, 1)}),
    # Two: the one that is renamed, and the one that names it as its parent.
    ("third", "fourth", {"experiments": (1, 1)}),
]


@pytest.mark.parametrize(("old", "new", "expected"), EDITS)
def test_an_edit_changes_only_what_depends_on_it(old: str, new: str, expected: dict[str, tuple[int, int]]) -> None:
    assert changes(old, new) == expected


ONE = """\
experiments:
  only:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 20]}}
      network: {name: sequence, mixer: attention, width: 16, depth: 2}
      learner: {name: supervised, rows: 640, curriculum: {column: delay}, keep: [last, best]}
      evaluate: {rows: 50, delays: [10, 20]}
      seed: 3
"""
WEIGHTS = {"runs", "evaluations", "experiments"}
NETWORK = {"networks", *WEIGHTS}
DATA = {"datasets", *WEIGHTS}
FIELDS: dict[str, tuple[str, set[str]]] = {
    "task.symbols": ("4", DATA),
    "task.delay": ("{log_uniform: [1, 19]}", DATA),
    "task.alphabet": ("9", {*DATA, *NETWORK}),
    "task.recall": ("reverse", DATA),
    "task.selective": ("true", DATA),
    "task.noise": ("2", {*DATA, *NETWORK}),
    "network.mixer": ("gru", NETWORK),
    "network.mixer.heads": ("2", NETWORK),
    "network.mixer.rope_theta": ("500", NETWORK),
    "network.width": ("32", NETWORK),
    "network.depth": ("1", NETWORK),
    "network.feedforward": ("1", NETWORK),
    "network.activation": ("relu", NETWORK),
    "network.attention": ("{}", NETWORK),
    "network.attention.at": ("[1]", NETWORK),
    "network.attention.heads": ("2", NETWORK),
    "network.attention.rope_theta": ("500", NETWORK),
    "network.attention.feedforward": ("1", NETWORK),
    "network.norm": ("rms", NETWORK),
    "network.final_norm": ("rms", NETWORK),
    "network.convolution": ("4", NETWORK),
    "network.embedding": ("orthogonal", NETWORK),
    "network.tie_embeddings": ("true", NETWORK),
    "network.residual": ("true", NETWORK),
    "network.dropout": ("0.1", NETWORK),
    "network.context": ("100", NETWORK),
    "learner.rows": ("1280", DATA),
    "learner.batch_size": ("16", WEIGHTS),
    "learner.evaluate_every": ("7", WEIGHTS),
    "learner.validation_rows": ("7", DATA),
    "learner.keep": ("[last, best, 7]", WEIGHTS),
    "learner.select": ("best", WEIGHTS),
    "learner.optimizer": ("adamw", WEIGHTS),
    "learner.learning_rate": ("0.5", WEIGHTS),
    "learner.betas": ("[0.8, 0.9]", WEIGHTS),
    "learner.eps": ("1.0e-6", WEIGHTS),
    "learner.weight_decay": ("0.1", WEIGHTS),
    "learner.lr_schedule": ("cosine", WEIGHTS),
    "learner.warmup_steps": ("3", WEIGHTS),
    "learner.min_lr_ratio": ("0.1", WEIGHTS),
    "learner.half_life": ("3", WEIGHTS),
    "learner.max_grad_norm": ("null", WEIGHTS),
    "learner.micro_batch_size": ("4", WEIGHTS),
    "learner.outer_learning_rate": ("0.5", WEIGHTS),
    "learner.identifier_learning_rate": ("0.5", WEIGHTS),
    "learner.identifier_weight_decay": ("0.5", WEIGHTS),
    "learner.ema_decay": ("0.9", WEIGHTS),
    "learner.curriculum": ("null", WEIGHTS),
    "learner.curriculum.column": ("symbols", WEIGHTS),
    "learner.curriculum.start": ("4", WEIGHTS),
    "learner.curriculum.factor": ("3", WEIGHTS),
    "learner.curriculum.threshold": ("0.8", WEIGHTS),
    "learner.curriculum.upper": ("0.8", WEIGHTS),
    "learner.curriculum.window": ("8", WEIGHTS),
    "learner.data": ("stream", DATA),
    "learner.distinct_rows": ("64", DATA),
    "learner.loader": ("memory", WEIGHTS),
    "learner.stop_at": ("0.5", WEIGHTS),
    "network.norm_eps": ("1e-6", NETWORK),
    "network.gate_gain": ("1.5", NETWORK),
    "evaluate.rows": ("60", {"datasets", "evaluations", "experiments"}),
    "evaluate.delays": ("[10]", {"datasets", "evaluations", "experiments"}),
    "evaluate.symbols": ("[2]", {"datasets", "evaluations", "experiments"}),
    "seed": ("4", WEIGHTS),
}


def test_an_evaluation_is_identified_by_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets, the kind of measurement and its settings: nothing is trained again for another."""
    from pipeline.evaluation.measurements import MEASUREMENTS
    from pipeline.evaluation.measurements.tokens import Tokens

    class Twice(Tokens):
        """Tokens in another way."""

        name: Literal["twice"] = "twice"  # pyright: ignore[reportIncompatibleVariableOverride]
        share: float = 1.0

    monkeypatch.setitem(MEASUREMENTS, "twice", Twice)
    kinds = ("tokens", "twice", "{name: twice, share: 0.5}", "{name: twice, share: 1.0}")
    plans = [with_field("evaluate.measurement", kind) for kind in kinds]
    assert things(plans[0])["evaluations"] == things(planned(ONE))["evaluations"]
    assert len({frozenset(things(plan)["evaluations"]) for plan in plans}) == 3
    assert len({frozenset(things(plan)["runs"] | things(plan)["datasets"]) for plan in plans}) == 1
    for kind, said in (("thrice", "expected one of"), ("{name: twice, shar: 1}", "shar: "), ("3", "expected the name of a kind")):
        with pytest.raises(ConfigError, match=said):
            with_field("evaluate.measurement", kind)


def with_field(dotted: str, value: str) -> Plan:
    """The plan of ONE with a single field set."""
    from pipeline.config.document import Location, put_dotted

    document = read_text(ONE, "c.yaml")
    put_dotted(document["experiments"]["only"]["base"], dotted, read_text(f"value: {value}", "set")["value"], Location("set", 1, dotted))
    return make_plan(expand(document))


@pytest.mark.parametrize("dotted", FIELDS)
def test_every_field_changes_identifiers(dotted: str) -> None:
    value, expected = FIELDS[dotted]
    before, after = things(planned(ONE)), things(with_field(dotted, value))
    assert {kind for kind in before if before[kind] != after[kind]} == expected


def test_every_field_is_in_the_table_above() -> None:
    from pipeline.config.learners import Curriculum, Supervised
    from pipeline.config.networks import AttentionBlocks, SequenceNetwork
    from pipeline.config.tasks import Copy, CopyEvaluation

    pages: dict[str, Any] = {"task": Copy, "network": SequenceNetwork, "learner": Supervised, "evaluate": CopyEvaluation}
    known = {f"{page}.{key}" for page, kind in pages.items() for key in kind.model_fields if key != "name"}
    known |= {f"learner.curriculum.{key}" for key in Curriculum.model_fields}
    known |= {f"network.attention.{key}" for key in AttentionBlocks.model_fields}
    exempt = {"learner.steps", "learner.flops", "learner.seconds", "learner.parent", "network.parameters", "evaluate.measurement"}
    assert known - exempt - set(FIELDS) == set()


def test_a_stream_needs_no_training_rows() -> None:
    plan = with_field("learner.data", "stream")
    (run,) = plan.runs.values()
    assert run.spec["data"]["train"] is None
    assert run.data == [run.spec["data"]["validation"]]


def test_a_new_version_changes_the_identifiers_of_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned()
    monkeypatch.setattr(Gru, "version", 2)
    after = planned()
    gone = {name.split("-s")[0] for name in set(before.runs) - set(after.runs)}
    assert gone == {"copy-gru"}
    assert len(set(before.runs) - set(after.runs)) == 3
    assert set(before.datasets) == set(after.datasets)


def test_splits_never_share_a_dataset() -> None:
    task = expand(read_text(ONE, "c.yaml")).experiments[0].members[0].point.task
    identifiers = {dataset_of(task, split, 100).id for split in ("train", "validation", "test")}
    assert len(identifiers) == 3
    assert dataset_of(task, "train", 100).spec["split"] == "train"


@pytest.mark.parametrize(("rows", "shards"), [(1, 1), (SHARD_ROWS, 1), (SHARD_ROWS + 1, 2), (5 * SHARD_ROWS, 5)])
def test_rows_are_cut_into_shards(rows: int, shards: int) -> None:
    task = expand(read_text(ONE, "c.yaml")).experiments[0].members[0].point.task
    dataset = dataset_of(task, "train", rows)
    assert dataset.shards == [f"{index:05d}" for index in range(shards)]
    assert dataset.spec["shards"] == shards
    assert dataset_of(task, "train", rows + 1).id != dataset.id


def test_a_run_descends_from_its_parent() -> None:
    plan = planned()
    (child,) = [run for run in plan.runs.values() if run.parent]
    assert child.parent in plan.runs
    assert child.spec["learner"]["parent"] == child.canonical["learner"]["parent"] == child.parent
    changed = planned(BASE.replace("curriculum: {column: delay}", "curriculum: {column: delay, start: 5}"))
    (other,) = [run for run in changed.runs.values() if run.parent]
    assert other.id != child.id
    assert other.spec["learner"] == {**child.spec["learner"], "parent": other.parent}


def test_a_plan_round_trips_through_json() -> None:
    plan = planned()
    text = plan.to_json()
    thawed = Plan.from_json(text)
    assert thawed == plan
    assert thawed.to_json() == text
    run = next(iter(plan.runs))
    assert list(thawed.runs[run].spec["task"]) == list(plan.runs[run].spec["task"]), "a mapping in another order starts jobs again"
    assert {stage: sorted(files) for stage, files in thawed.files().items()} == {
        stage: sorted(files) for stage, files in plan.files().items()
    }


def test_two_specs_never_share_an_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "digest", lambda value: "00000000")
    with pytest.raises(UserError, match=r"^copy-test-00000000: two different specs share this identifier; change a value"):
        planned()


def test_files_lists_every_output_of_a_plan() -> None:
    plan = planned()
    files = plan.files()
    listed = list(itertools.chain(*files.values()))
    assert len(listed) == len(set(listed))
    for name, dataset in plan.datasets.items():
        for file in ("dataset.yaml", "manifest.json", "card.md", *(f"{shard}.parquet" for shard in dataset.shards)):
            assert f"datasets/{name}/{file}" in listed
    for name in plan.runs:
        assert {f"runs/{name}/{file}" for file in ("run.yaml", "model/model.safetensors", "model/config.json", "history.parquet")} <= set(
            listed
        )
    for item in plan.evaluations.values():
        assert f"evaluations/{item.run}/{item.id}.parquet" in files["evaluate"]
    for name in plan.networks:
        assert {f"profiles/{name}.yaml", f"profiles/{name}.parquet"} <= set(listed)
    assert {
        f"experiments/first/{figure}.{kind}" for figure in ("accuracy_by_delay", "cost_quality") for kind in ("svg", "pdf", "png", "csv")
    } == set(files["plot"])
    assert len(files["collect"]) == 3 * len(OUTPUTS["collect"][1])


def test_every_file_is_the_output_of_a_rule() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[1] / "workflow" / "rules").glob("*.smk")))
    plan = planned()
    for stage, files in plan.files().items():
        if stage == "describe":
            assert all(f"/{Path(file).name}" in rules or Path(file).parent.name == "profiles" for file in files)
            continue
        assert f'PLAN.outputs("{stage}"' in rules
        patterns = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(pattern)) for pattern in plan.outputs(stage)]
        assert all(any(re.fullmatch(pattern, f"results/{file}") for pattern in patterns) for file in files)


def test_the_methods_that_rules_call() -> None:
    plan = planned()
    run = next(iter(plan.runs.values()))
    assert plan.spec("run", run.id) == run.spec
    assert plan.spec("dataset", run.data[0])["split"] == "train"
    assert plan.spec("network", run.network)["id"] == run.network
    assert plan.spec("experiment", "first")["name"] == "first"
    with pytest.raises(UserError, match=r"^run nothing: not in the plan; expected one of copy-"):
        plan.spec("run", "nothing")
    assert {item.run for item in plan.evaluations_of("first")} == {run["run"] for run in plan.experiments["first"].spec["runs"]}
    assert plan.networks_of("second") == [plan.runs[plan.experiments["second"].spec["runs"][0]["run"]].network]


def test_the_code_a_figure_depends_on_exists() -> None:
    plan, root = planned(), str(Path(__file__).parents[1])
    for stage, arguments in (("collect", ()), ("plot", ("first", "accuracy_by_delay"))):
        for module in plan.code_of(stage, root, *arguments):
            assert Path(module).exists()


def test_an_experiment_describes_its_runs() -> None:
    plan = planned()
    spec = plan.experiments["first"].spec
    assert spec["columns"] == ["network.mixer"]
    assert [(run["label"], run["seed"]) for run in spec["runs"]] == [("gru", 0), ("gru", 1), ("lstm", 0), ("lstm", 1)]
    entry = spec["runs"][0]
    assert entry["coordinates"] == {"network.mixer": "gru"}
    assert (entry["task"], entry["chance"], entry["batch"], entry["variant"]) == ("copy", 1 / 8, 32, None)
    assert entry["network"] in plan.networks
    assert entry["evaluate"] == {"rows": 50, "delays": [10, 20], "symbols": []} or entry["evaluate"]["delays"] == [10, 20]


KEPT = """\
experiments:
  only:
    base:
      task: {name: copy, symbols: 3, delay: 20}
      network: {name: sequence, mixer: {name: lstm, init: chrono, horizon: 20}, width: 16}
      learner: {name: supervised, rows: 640, batch_size: 32, warmup_steps: 7}
"""
SAME = [
    "sweep: {network.mixer: [lstm, gru]}",
    "sweep: {network.mixer: [{name: lstm}, gru]}",
    "sweep: {network: [sequence, {mixer: gru}]}",
    "sweep: {learner: [supervised, {name: supervised, rows: 640, batch_size: 32}]}",
    "sweep: {task: [copy, {name: copy, symbols: 3, delay: 9}]}",
    "variants: {twin: {network.mixer: lstm}}",
    "variants: {twin: {network: {mixer: {name: lstm}}}}",
    "variants: {twin: {network: sequence, learner: supervised, task: {name: copy}}}",
]


@pytest.mark.parametrize("extra", SAME)
def test_a_bare_name_keeps_the_fields_of_base(extra: str) -> None:
    """The base's own run is among those of the sweep, by its identifier; the variant would be that run, and is refused."""
    (base,) = planned(KEPT).runs
    if "variants" in extra:
        with pytest.raises(ConfigError, match="equal points: base and variant twin"):
            planned(f"{KEPT}    {extra}\n")
        return
    found = planned(f"{KEPT}    {extra}\n")
    assert base in found.runs
    assert len(found.runs) == 2


def test_unused_keys_of_base_are_shown() -> None:
    variants = "{other: {learner: {name: supervised, rows: 640, batch_size: 32}}, wide: {network.width: 32}}"
    extra = f"sweep: {{network.mixer: [lstm, gru]}}\n    variants: {variants}"
    experiment = planned(f"{KEPT}    {extra}\n").experiments["only"]
    assert experiment.dropped == {
        "gru": {"network.mixer.init": "chrono", "network.mixer.horizon": 20},
        "other": {"learner.warmup_steps": 7},
    }
    coordinates = {run["label"]: run["coordinates"] for run in experiment.spec["runs"]}
    assert coordinates["lstm"] == {"network.mixer": "lstm (horizon=20, init=chrono)"}
    assert coordinates["gru"] == {"network.mixer": "gru"}


def test_the_wide_variant_in_the_readme_differs_only_in_width() -> None:
    page = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    plan = planned(page.split("```yaml\n")[1].split("```")[0])
    runs, tuned = plan.experiments["copy"].spec["runs"], {"learner.learning_rate": 0.003}
    lstm, wide = (
        next(plan.runs[run["run"]].spec for run in runs if (run["label"], run["tuned"]) == (label, tuned)) for label in ("lstm", "wide")
    )
    assert {**wide["network"], "width": 64} == lstm["network"]
    assert all(wide[key] == lstm[key] for key in ("task", "learner", "seed", "data"))


@pytest.mark.parametrize(("most", "right"), [(8, False), (9, True)])
def test_a_sweep_beyond_max_runs_is_refused(most: int, right: bool) -> None:
    extra = "sweep: {network.width: [8, 16], seed: [0, 1, 2]}\n    variants: {deep: {network.depth: 2}}"
    text = f"{KEPT}    {extra}\nruntime: {{max_runs: {most}}}\n"
    if right:
        assert len(planned(text).runs) == 9
        return
    with pytest.raises(UserError, match=r"^c\.yaml:7: experiments\.only\.sweep: makes 9 runs; expected at most runtime\.max_runs = 8$"):
        planned(text)


LABELS = [
    ("", ["gru"]),
    ("    sweep: {network.mixer: [lstm, gru]}\n", ["gru", "lstm"]),
    ("    sweep: {network.mixer: [{name: lstm, init: chrono}, gru]}\n", ["gru", "lstm"]),
    ("    sweep: {network.mixer: [{name: lstm, init: chrono}, lstm]}\n", ["lstm", "lstm (init=chrono)"]),
    ("    sweep: {network.width: [8, 16]}\n", ["width 16", "width 8"]),
    ("    sweep: {network.mixer: [gru, lstm], network.width: [8, 16]}\n", ["gru, width 16", "gru, width 8", "lstm, width 16", "lstm, width 8"]),
    ("    sweep: {seed: [0, 1]}\n", ["gru"]),
    ("    sweep: {network.norm: [rms], network.residual: [true, false]}\n", ["norm rms, residual false", "norm rms, residual true"]),
    ("    variants: {wide: {network.width: 32}}\n", ["gru", "wide"]),
    ("    sweep: {learner.max_grad_norm: [null, 2]}\n", ["max_grad_norm 2.0", "max_grad_norm null"]),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "labels"), LABELS)
def test_labels_are_short_and_different(extra: str, labels: list[str]) -> None:
    text = ONE.replace("mixer: attention, width: 16, depth: 2", "mixer: gru, width: 16")
    spec = planned(text + extra).experiments["only"].spec
    assert sorted({run["label"] for run in spec["runs"]}) == labels


def test_planning_hundreds_of_runs_is_fast() -> None:
    import time

    text = ONE.replace("mixer: attention, width: 16, depth: 2", "mixer: gru, width: 16")
    text += f"    sweep: {{network.mixer: [gru, lstm, none], seed: {list(range(100))}}}\n"
    start = time.process_time()
    assert len(planned(text).runs) == 300
    assert time.process_time() - start < 4


def test_planning_imports_nothing_that_computes() -> None:
    """What a dry run must not wait for: measurements are declared and planned without numpy and pyarrow."""
    script = """import sys
from pathlib import Path
from pipeline.plan import plan_file
import pipeline.evaluation.measurements, pipeline.workspace
assert plan_file(Path("config.yaml")).files()
print(sorted({"numpy", "pandas", "pyarrow", "torch", "matplotlib"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_files_of_further_networks_and_assets_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [files for files, _ in planned().trainings()] == [[]]
    monkeypatch.setattr("pipeline.config.learners.Supervised.models", ("model", "peer"))
    monkeypatch.setattr("pipeline.config.learners.Supervised.assets", ("tokenizer.json",))
    plan = planned()
    further = ["model/peer.safetensors", "model/tokenizer.json"]
    assert {f"runs/{name}/{file}" for name in plan.runs for file in further} < set(plan.files()["train"])
    (none, _), (files, runs) = plan.trainings()
    assert none == [] and files == further and all(re.fullmatch(runs, name) for name in plan.runs)
