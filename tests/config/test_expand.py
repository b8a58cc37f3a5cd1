"""From the written file to runs: presets, sweeps, variants, parents, and the checks of several fields together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import expand as resolving
from pipeline.config.config_file import Point
from pipeline.config.document import read_document, read_text
from pipeline.config.expand import ExpandedConfig, expand
from pipeline.config.mixers import Lstm
from pipeline.config.points import ExpandedPoint
from pipeline.plan import plan_file
from pipeline.storage.errors import UserError

HEAD = """\
experiments:
  a:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 9]}}
      network: {name: sequence, mixer: {name: lstm, horizon: 9}, width: 8, context: 500}
      learner: {name: supervised, steps: 5}
"""
NEXT = HEAD.count("\n") + 1


def members(text: str) -> list[ExpandedPoint]:
    """The members of the only experiment."""
    return expand(read_text(text, "c.yaml")).experiments[0].members


def fails(text: str) -> str:
    """What the whole path from text to plan says to a mistake."""
    from pipeline.plan import make_plan

    with pytest.raises(UserError) as caught:
        make_plan(expand(read_text(text, "c.yaml")))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of presets."""
    folder = tmp_path / "presets"
    folder.mkdir()
    monkeypatch.setattr(resolving, "PRESETS", folder)
    return folder


def test_a_sweep_is_the_product_of_its_lists() -> None:
    found = members(HEAD + "    sweep:\n      network.mixer: [lstm, gru]\n      seed: [3, 4, 5]\n")
    assert [(member.coordinates["network.mixer"], member.point.seed) for member in found] == [
        (mixer, seed) for mixer in ("lstm (horizon=9)", "gru") for seed in (3, 4, 5)
    ]


def test_a_swept_component_replaces_and_a_swept_field_reaches_into_it() -> None:
    replacing = members(HEAD + "    sweep: {network.mixer: [{name: lstm, init: chrono}, gru]}\n")
    assert replacing[0].point.network.mixer == Lstm(init="chrono")  # pyright: ignore[reportAttributeAccessIssue]
    reaching = members(HEAD + "    sweep: {network.mixer.init: [chrono, default]}\n")
    assert reaching[0].point.network.mixer == Lstm(init="chrono", horizon=9)  # pyright: ignore[reportAttributeAccessIssue]
    merging = members(HEAD + "    sweep: {network.mixer: [{init: chrono}, {horizon: 20}]}\n")
    assert merging[1].point.network.mixer == Lstm(horizon=20)  # pyright: ignore[reportAttributeAccessIssue]


def test_coordinates_are_validated_values() -> None:
    text = (
        HEAD + "    sweep:\n      network.mixer: [{horizon: 50, init: chrono, name: lstm}, gru]\n"
        "      learner.validation_rows: [1k, 2e3]\n      learner.betas: [[0.9, 0.99]]\n"
        "      evaluate.rows: ['7']\n      learner.max_grad_norm: [null, 1]\n"
        "      task.delay: [{uniform: [1, 5]}, 7]\n"
    )
    found = members(text)
    assert found[0].coordinates == {
        "network.mixer": "lstm (horizon=50, init=chrono)",
        "learner.validation_rows": 1000,
        "learner.betas": [0.9, 0.99],
        "evaluate.rows": 7,
        "learner.max_grad_norm": None,
        "task.delay": "uniform=[1, 5]",
    }
    assert found[-1].coordinates["task.delay"] == 7
    assert found[-1].coordinates["learner.validation_rows"] == 2000
    assert found[-1].coordinates["network.mixer"] == "gru"


def test_the_order_of_overrides_means_nothing() -> None:
    one = (
        HEAD
        + "    variants: {v: {network.width: 16, network: {name: sequence, depth: 2}, network.mixer.horizon: 7, network.mixer: lstm}}\n"
    )
    other = (
        HEAD
        + "    variants: {v: {network.mixer: lstm, network.mixer.horizon: 7, network: {depth: 2, name: sequence}, network.width: 16}}\n"
    )
    assert members(one)[1].point == members(other)[1].point
    assert members(one)[1].point.network.model_dump(exclude_defaults=True) == {"width": 16, "depth": 2, "mixer": {"horizon": 7}}


def test_variants_are_swept_over_the_seeds_only() -> None:
    text = (
        HEAD
        + "    sweep: {network.mixer: [lstm, gru], seed: [0, 1]}\n    variants: {wide: {network.width: 16}, deep: {network.depth: 2}}\n"
    )
    found = members(text)
    assert [(member.variant, member.point.seed) for member in found[4:]] == [("wide", 0), ("wide", 1), ("deep", 0), ("deep", 1)]
    assert found[4].point.network.width == 16  # pyright: ignore[reportAttributeAccessIssue]
    assert found[4].overrides == {"network.width": 16}
    assert found[4].coordinates == {"seed": 0}


def test_without_sweep_and_variants_there_is_one_run() -> None:
    assert [(member.variant, member.coordinates, member.point.seed) for member in members(HEAD)] == [(None, {}, 0)]


def test_bare_names_are_components_with_all_defaults() -> None:
    text = "experiments:\n  a:\n    base:\n      task: copy\n      network: sequence\n      learner: {name: supervised, rows: 64}\n"
    point = members(text)[0].point
    assert point.task == Point.model_validate({**point.model_dump(), "task": {"name": "copy"}}).task


SWEEPS = {
    "a swept value": (
        "    sweep:\n      network.width:\n        - 8\n        - -3\n",
        3,
        "sweep.network.width[1]: got -3; expected at least 1",
    ),
    "a swept component": (
        "    sweep:\n      network.mixer: [lstm,\n        lstn]\n",
        2,
        "sweep.network.mixer[1]: got 'lstn'; did you mean 'lstm'?",
    ),
    "a field of a swept component": (
        "    sweep:\n      network.mixer:\n        - {name: gru}\n        - name: lru\n          r_mim: 1\n",
        4,
        "sweep.network.mixer[1].r_mim: unknown key; did you mean 'r_min'?",
    ),
    "a swept key": ("    sweep:\n      learner.batches: [1]\n", 1, "sweep.learner.batches[0]: unknown key; did you mean 'batch_size'?"),
    "a swept path": (
        "    sweep:\n      seed: [0]\n      learner.batch_size.size: [1]\n",
        2,
        "sweep.learner.batch_size.size[0]: got a mapping; expected a whole number",
    ),
    "a path into a number": (
        "    sweep:\n      task.symbols.low: [1]\n",
        -2,
        "base.task.symbols: got 3; expected a mapping, since 'task.symbols.low' is set in it",
    ),
    "a value twice": ("    sweep:\n      seed: [0, 1, 0]\n", 1, "sweep.seed[2]: 0 is listed twice; expected different values"),
    "one number in two spellings": (
        "    sweep:\n      learner.validation_rows: [1k, 2k, 1_000]\n",
        1,
        "sweep.learner.validation_rows[2]: equal points: learner.validation_rows: 1000 and learner.validation_rows: 1000; expected",
    ),
    "one component in two spellings": (
        "    sweep:\n      network.mixer: [gru, {name: gru}]\n",
        1,
        "sweep.network.mixer[1]: equal points: network.mixer: 'gru' and network.mixer: 'gru'; expected different ones",
    ),
    "a variant that is a swept point": (
        "    sweep:\n      network.mixer: [gru, lstm]\n    variants:\n      v:\n        network.mixer: gru\n",
        3,
        "variants.v: equal points: network.mixer: 'gru' and variant v; expected different ones",
    ),
    "two equal variants": (
        "    variants:\n      v: {seed: 1}\n      w: {seed: 1}\n",
        2,
        "variants.w: equal points: variant v and variant w; expected different ones",
    ),
    "an axis that is no list": ("    sweep:\n      seed: 3\n", 1, "sweep.seed: got 3; expected a list of at least one value"),
    "a variant's field": (
        "    variants:\n      v:\n        network.widht: 3\n",
        2,
        "variants.v.network.widht: unknown key; did you mean 'width'?",
    ),
    "a variant's value": (
        "    variants:\n      v:\n        network.width: 0\n",
        2,
        "variants.v.network.width: got 0; expected at least 1 or auto",
    ),
    "a variant that clashes": (
        "    variants:\n      v:\n        learner.steps: 3\n        learner.rows: 100\n",
        3,
        "variants.v.learner.rows: got rows and steps; expected one budget out of rows, steps, flops and seconds",
    ),
    "a variant's heads": (
        "    variants:\n      v:\n        network.mixer: {name: attention, heads: 3}\n",
        2,
        "variants.v.network.mixer: got width 8; 3 heads expect one divisible by 6",
    ),
    "a variant's name": ("    variants:\n      Wide: {network.width: 3}\n", 1, "variants.Wide: got the name 'Wide'; expected lower-case"),
    "a variant's seed": (
        "    sweep: {seed: [0, 1]}\n    variants:\n      v:\n        seed: 3\n",
        3,
        "variants.v.seed: seed is swept, and every variant with it; expected one of the two",
    ),
    "a variant with a swept point's name": (
        "    sweep: {network.mixer: [lstm, gru]}\n    variants:\n      gru: {network.width: 16}\n",
        2,
        "variants.gru: variant 'gru' has the same name as a swept point; rename the variant",
    ),
    "an unused value of base": ("      seed: -1\n    sweep: {seed: [0, 1]}\n", 0, "base.seed: got -1; expected at least 0"),
    "a figure twice": (
        "    figures: [learning_curves,\n      {name: learning_curves}]\n",
        1,
        "figures[1]: learning_curves is listed twice; expected each figure once",
    ),
    "a figure's option": (
        "    figures:\n      - name: cost_quality\n        titel: x\n",
        2,
        "figures[0].titel: unknown key; did you mean 'title'?",
    ),
    "a figure that is not there": (
        "    figures: [accuracy_at_longst]\n",
        0,
        "figures[0]: got 'accuracy_at_longst'; did you mean 'accuracy_at_longest'?",
    ),
    "a question": ("    question: [why]\n", 0, "question: got a list; expected a string"),
    "a long evaluation": (
        "      evaluate:\n        delays: [500]\n",
        0,
        "base.evaluate: rows of 506 tokens exceed network.context = 500; expected at most that",
    ),
    "a long variant": (
        "    variants:\n      far: {task.delay: 600}\n",
        1,
        "variants.far.task.delay: rows of 606 tokens exceed network.context = 500; expected at most that",
    ),
    "a short context": (
        "    variants:\n      v: {network.context: 14}\n",
        1,
        "variants.v.network.context: rows of 15 tokens exceed network.context = 14; expected at most that",
    ),
    "tied embeddings without classes": (
        "    variants:\n      v:\n        task: {name: adding}\n        evaluate: {rows: 10}\n        network.tie_embeddings: true\n",
        4,
        "variants.v.network.tie_embeddings: adding is answered by real numbers; expected false: they have no embedding",
    ),
    "a curriculum's column": (
        "    variants:\n      v:\n        learner.curriculum: {column: dealy}\n",
        2,
        "variants.v.learner.curriculum.column: copy has no column 'dealy'; did you mean 'delay'?",
    ),
}


@pytest.mark.parametrize("case", SWEEPS)
def test_a_mistake_in_an_override_is_named_where_it_was_written(case: str) -> None:
    text, offset, message = SWEEPS[case]
    assert fails(HEAD + text).startswith(f"c.yaml:{NEXT + offset if offset >= 0 else 4}: experiments.a.{message}")


CLASHES = {
    "rows: 100, steps: 5": "rows and steps; expected one budget out of rows, steps, flops and seconds",
    "steps: 5, seconds: 5": "steps and seconds; expected one budget out of rows, steps, flops and seconds",
    "rows: 10, batch_size: 32": "got rows: 10; expected at least 32, one update",
    "rows: 64, batch_size: 32, micro_batch_size: 64": "got micro_batch_size: 64; expected at most batch_size: 32",
    "steps: 5, keep: [best]": "select: last needs last in 'keep', got ['best']",
    "steps: 5, select: best": "select: best needs best in 'keep', got ['last']",
    "seconds: 5, lr_schedule: cosine": "lr_schedule: cosine with a budget in seconds; expected one in rows, steps or flops",
    "steps: 5, data: stream, distinct_rows: 100": "'distinct_rows' is used with data: shards only, got data: stream",
    "batch_size: 8": "missing budget; expected one of rows, steps, flops and seconds",
}


@pytest.mark.parametrize("written", CLASHES)
def test_fields_that_contradict_each_other(written: str) -> None:
    fields = written.split(", ")
    lines = "".join(f"        {field}\n" for field in fields)
    text = HEAD.replace("learner: {name: supervised, steps: 5}\n", f"learner:\n        name: supervised\n{lines}")
    said = fails(text)
    assert said.endswith(CLASHES[written])
    last = NEXT + len(fields) if "missing" not in said else 6
    assert said.startswith(f"c.yaml:{last}: experiments.a.base.learner")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("{name: sequence, width: auto}", "network.width: width: auto needs 'parameters', the number of weights to aim at"),
        ("{name: sequence, width: 8, parameters: 1k}", "network.parameters: 'parameters' is used with width: auto only, got width: 8"),
        ("{name: sequence, mixer: attention, width: 12}", "network.width: got width 12; 4 heads expect one divisible by 8"),
        (
            "{name: sequence, mixer: {name: lru, r_max: 0.5}}",
            "network.mixer.r_max: got r_min: 0.9 and r_max: 0.5; expected r_min <= r_max",
        ),
    ],
)
def test_networks_that_cannot_be_built(network: str, message: str) -> None:
    assert fails(HEAD.replace("{name: sequence, mixer: {name: lstm, horizon: 9}, width: 8, context: 500}", network)).endswith(message)


@pytest.mark.parametrize("mixer", ["full_attention", "token_mixing", "stencil", "both_ways"])
def test_a_mixer_that_reads_whole_grids_is_refused_where_rows_are_none(mixer: str) -> None:
    network = HEAD.replace("{name: lstm, horizon: 9}", mixer)
    wrong = f"{mixer} reads whole grids in all directions, rows of copy are read forwards; expected a causal mixer"
    assert fails(network) == f"c.yaml:5: experiments.a.base.network.mixer: {wrong}"


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ("{name: both_ways, mixer: {name: lstm, heads: 3}}", "network.mixer.mixer.heads: unknown key; expected one of forget_bias"),
        ("{name: both_ways, mixer: stencil}", "network.mixer.mixer: got 'stencil'"),
        ("{name: both_ways, mixer: {name: both_ways}}", "network.mixer.mixer.name: got 'both_ways'"),
        ("full_attention, attention: {heads: 2}", "full_attention is not causal, the attention of a hybrid is; expected attention: null"),
        ("full_attention, convolution: 4", "full_attention is not causal, the convolution is; expected convolution: 0"),
        ("{name: both_ways, mixer: attention}, width: 12", "got width 12; 4 heads expect one divisible by 8"),
    ],
)
def test_networks_of_whole_grids_that_cannot_be_built(mixer: str, message: str) -> None:
    assert message in fails(HEAD.replace("{name: lstm, horizon: 9}, width: 8", mixer if "width" in mixer else f"{mixer}, width: 8"))


def test_mixers_run_both_ways_are_named_after_the_mixer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "check_point", lambda *_: None)
    mixers = "[both_ways, {name: both_ways, mixer: gru}, {name: both_ways, mixer: {name: gru, init: chrono}}]"
    found = members(HEAD + f"    sweep:\n      network.mixer: {mixers}\n")
    assert [member.coordinates["network.mixer"] for member in found] == [
        "lstm_both_ways",
        "gru_both_ways",
        "gru_both_ways (init=chrono)",
    ]
    assert [member.point.network.label for member in found] == ["lstm_both_ways", "gru_both_ways", "gru_both_ways"]


def test_a_figure_needs_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.config.tasks import Column, Copy

    monkeypatch.setattr(Copy, "columns", {"symbols": Column("symbols", "symbols")})
    said = fails(HEAD + "    figures:\n      - learning_curves\n      - {name: accuracy_by, column: delay}\n")
    assert said == (
        f"c.yaml:{NEXT + 2}: experiments.a.figures[1]: accuracy_by draws the column 'delay', which copy does not have; expected symbols"
    )


def test_a_figure_of_free_runs_needs_a_task_that_is_measured_by_them() -> None:
    said = fails(HEAD + "    figures: [first_errors]\n")
    wrong = "copy is measured by tokens; expected free_running, which first_errors draws"
    assert said == f"c.yaml:{NEXT}: experiments.a.figures[0]: {wrong}"


def test_a_figure_of_sizes_needs_a_task_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.config.tasks import Column, Copy

    figure = HEAD + "    figures: [learning_curves, steps_to_solve]\n"
    assert len(members(figure)) == 1
    monkeypatch.setattr(Copy, "columns", {"surprise": Column("surprise", "none")})
    message = "steps_to_solve compares sizes of training tasks; copy has no field that is a metadata column"
    assert fails(figure) == f"c.yaml:{NEXT}: experiments.a.figures[1]: {message}"


def test_a_preset_lies_beneath_what_is_written(presets: Path) -> None:
    (presets / "big.yaml").write_text("# A big one\nname: sequence\nwidth: 512\ndepth: 4\nmixer: {name: gru, horizon: 77}\n")
    text = HEAD.replace("{name: sequence, mixer: {name: lstm, horizon: 9}, width: 8, context: 500}", "{preset: big, depth: 2}")
    network = members(text)[0].point.network.model_dump(exclude_defaults=True)
    assert (network["width"], network["depth"], network["mixer"]["horizon"]) == (512, 2, 77)


def test_presets_may_build_on_each_other_and_be_swept(presets: Path) -> None:
    (presets / "small.yaml").write_text("name: sequence\nwidth: 4\ndepth: 3\n")
    (presets / "middle.yaml").write_text("preset: small\nwidth: 6\n")
    (presets / "fast.yaml").write_text("name: supervised\nsteps: 2\nlearning_rate: 1e-2\n")
    text = (
        HEAD
        + "    sweep: {network: [{preset: small}, {preset: middle}]}\n    variants: {quick: {learner: {preset: fast, batch_size: 4}}}\n"
    )
    found = members(text)
    assert [(member.point.network.width, member.point.network.depth) for member in found[:2]] == [(4, 3), (6, 3)]  # pyright: ignore[reportAttributeAccessIssue]
    assert [member.coordinates["network"] for member in found[:2]] == ["preset=small", "preset=middle"]
    assert (found[2].point.learner.steps, found[2].point.learner.batch_size) == (2, 4)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_preset_for_a_mixer(presets: Path) -> None:
    (presets / "patient.yaml").write_text("name: lstm\ninit: chrono\nhorizon: 300\n")
    found = members(HEAD + "    sweep: {network.mixer: [{preset: patient}, {preset: patient, horizon: 200}]}\n")
    assert [member.point.network.mixer.horizon for member in found] == [300, 200]  # pyright: ignore[reportAttributeAccessIssue]


def test_mistakes_in_presets_are_named_in_their_files(presets: Path) -> None:
    (presets / "big.yaml").write_text("name: sequence\n\nwdith: 512\n")
    text = HEAD.replace("{name: sequence, mixer: {name: lstm, horizon: 9}, width: 8, context: 500}", "{preset: big}")
    assert fails(text) == "c.yaml:5: experiments.a.base.network.preset: big.yaml:3: wdith: unknown key; did you mean 'width'?"
    (presets / "big.yaml").write_text("name: sequence\nwidth: [512\n")
    assert fails(text).startswith(f"{presets / 'big.yaml'}:2: not YAML: expected ',' or ']'")
    assert (
        fails(text.replace("preset: big", "preset: bigg")) == "c.yaml:5: experiments.a.base.network.preset: got 'bigg'; did you mean 'big'?"
    )
    (presets / "big.yaml").write_text("preset: big\n")
    assert fails(text) == f"{presets / 'big.yaml'}:1: preset: more than 5 presets that name each other; expected a chain that ends"


def test_a_value_of_base_that_no_run_has_may_clash_with_swept_ones() -> None:
    sweep = "    sweep: {network.mixer: [{name: attention, heads: 4}, {name: attention, heads: 2}], network.width: [8, 16]}\n"
    lines = HEAD.replace("width: 8", "width: 7").splitlines(keepends=True)
    for text in ("".join(lines) + sweep, "".join([*lines[:2], sweep, *lines[2:]])):
        assert len(members(text)) == 4


PARENT = """\
  b:
    base:
      task: {name: copy, symbols: 3, delay: {log_uniform: [1, 9]}}
      network: {name: sequence, mixer: {name: lstm, horizon: 9}, width: 8, context: 600}
      learner:
        name: supervised
        steps: 9
        parent: a
"""
LINE = NEXT + PARENT.count("\n") - 1


def parented(extra: str = "", parent: str = PARENT) -> str:
    return HEAD + extra + parent


def where_of_parent(extra: str) -> str:
    return f"c.yaml:{LINE + extra.count(chr(10))}: experiments.b.base.learner.parent: "


def test_a_parent_is_the_run_with_the_same_seed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(parented("    sweep: {seed: [0, 1]}\n") + "    sweep: {seed: [0, 1]}\n")
    plan = plan_file(tmp_path / "c.yaml")
    children = [run for run in plan.runs.values() if run.parent]
    assert len(children) == 2
    for child in children:
        assert child.parent is not None
        parent = plan.runs[child.parent]
        assert parent.spec["seed"] == child.spec["seed"]
        assert parent.spec["learner"]["steps"] == 5
        assert child.spec["learner"]["parent"] == parent.id
        assert plan.parents_of(child.id) == [parent.id]
        assert plan.parents_of(parent.id) == []


def test_a_parent_may_be_a_variant() -> None:
    extra = "    variants: {long: {learner.steps: 50}, short: {learner.steps: 3}}\n"
    from pipeline.plan import make_plan

    plan = make_plan(expand(read_text(parented(extra, PARENT.replace("parent: a", "parent: a/long")), "c.yaml")))
    (child,) = [run for run in plan.runs.values() if run.parent]
    assert child.parent is not None
    assert plan.runs[child.parent].spec["learner"]["steps"] == 50


def test_candidates_of_one_seed_share_their_parent() -> None:
    from pipeline.plan import make_plan

    seeds, tune = "    sweep: {seed: [0, 1]}\n", "    tune: {learner.learning_rate: [1e-3, 1e-2]}\n"
    plan = make_plan(expand(read_text(parented(seeds) + seeds + tune, "c.yaml")))
    children = [run for run in plan.runs.values() if run.parent]
    assert len(children) == 4
    assert len({(child.spec["seed"], child.parent) for child in children}) == 2
    assert all(plan.runs[str(child.parent)].spec["seed"] == child.spec["seed"] for child in children)


@pytest.mark.parametrize(
    ("extra", "parent", "message"),
    [
        ("", "parent: aa", "no experiment 'aa'; did you mean 'a'?"),
        ("", "parent: zzz", "no experiment 'zzz'; expected one of a, b"),
        ("", "parent: a/long", "a has no variant 'long'; expected no '/'"),
        ("    variants: {long: {learner.steps: 50}}\n", "parent: a/lnog", "a has no variant 'lnog'; did you mean 'long'?"),
        ("    sweep: {network.width: [8, 16]}\n", "parent: a", "a has 2 runs with seed 0; expected exactly one"),
        ("    sweep: {seed: [1, 2]}\n", "parent: a", "a has no run with seed 0; expected exactly one"),
        (
            "    tune: {learner.learning_rate: [1e-3, 1e-2]}\n",
            "parent: a",
            "a is tuned, so its run is not known in advance; expected an experiment without tune",
        ),
        ("", "parent: b", "b leads back to the same run; expected a chain that ends"),
        ("", "parent: 3", "got 3; expected a string"),
    ],
)
def test_parents_that_cannot_be(extra: str, parent: str, message: str) -> None:
    assert fails(parented(extra, PARENT.replace("parent: a", parent))) == where_of_parent(extra) + message


def test_parents_in_a_circle() -> None:
    text = parented().replace("steps: 5}", "steps: 5, parent: b}")
    assert fails(text) == "c.yaml:6: experiments.a.base.learner.parent: b leads back to the same run; expected a chain that ends"


@pytest.mark.parametrize(
    ("old", "new", "different"),
    [
        ("width: 8, context: 600", "width: 16", "width"),
        ("mixer: {name: lstm, horizon: 9}, width: 8, context: 600", "mixer: gru, width: 8, depth: 2", "depth, mixer"),
        ("symbols: 3", "symbols: 3, alphabet: 9", "classes, vocabulary"),
    ],
)
def test_a_parent_has_the_network_of_its_child(old: str, new: str, different: str) -> None:
    said = fails(parented("", PARENT.replace(old, new)))
    assert said == where_of_parent("") + f"a differs in {different}; expected a network of the same weights"


def test_a_learner_that_takes_a_part_may_have_a_parent_of_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    text = parented("", PARENT.replace("width: 8, context: 600", "width: 16"))
    assert "a differs in width" in fails(text)
    monkeypatch.setattr("pipeline.config.learners.Supervised.same_network", False)
    assert len(expand(read_text(text, "c.yaml")).experiments) == 2


def test_a_parent_may_differ_in_what_changes_no_weights() -> None:
    text = parented("", PARENT.replace("context: 600", "context: 700, dropout: 0.1"))
    assert len(expand(read_text(text, "c.yaml")).experiments) == 2


def test_the_first_mistake_of_several_is_named(tmp_path: Path) -> None:
    said = fails(HEAD.replace("symbols: 3", "symbol: 3").replace("width: 8", "width: -8") + "    figures: [nothing]\n")
    assert said == "c.yaml:4: experiments.a.base.task.symbol: unknown key; did you mean 'symbols'?"


def test_loading_answers_what_resolving_does(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(HEAD)
    found = expand(read_document(tmp_path / "c.yaml"))
    assert isinstance(found, ExpandedConfig)
    assert found.runtime.threads == 1
    assert found.tracking.wandb == "off"


def test_a_context_from_a_preset_is_reported_where_the_user_named_the_preset() -> None:
    text = HEAD.replace("{log_uniform: [1, 9]}", "6000")
    network = "{preset: 1m_transformer}"
    text = "".join(f"      network: {network}\n" if "network:" in line else line for line in text.splitlines(keepends=True))
    with pytest.raises(
        UserError,
        match=r"^suite\.yaml:5: experiments\.a\.base\.network: rows of 6006 tokens exceed network.context = 4096; expected at most that$",
    ):
        expand(read_text(text, "suite.yaml"))
