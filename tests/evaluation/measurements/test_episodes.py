"""An environment through every room: held-out episodes, training by acting, weights, evaluation, pictures, cost, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats

from pipeline.cli.try_ import document_of_point
from pipeline.config.catalogue import implementation
from pipeline.config.expand import expand
from pipeline.config.spec_files import load_component, read_spec, write_spec
from pipeline.config.tasks import Gymnasium
from pipeline.evaluation.collect import collect
from pipeline.evaluation.evaluate import evaluate, measured
from pipeline.evaluation.measurements import measurement_named
from pipeline.evaluation.measurements.episodes import PICTURES, Strip
from pipeline.evaluation.runs import load_run
from pipeline.evaluation.statistics import wilson_interval
from pipeline.in_process import run_plan
from pipeline.learners.playing import play
from pipeline.networks.actor_critic import ActorCritic
from pipeline.plan import Plan, make_plan
from pipeline.storage.errors import UserError
from pipeline.storage.loader import Episodes, open_episodes
from pipeline.storage.rng import derive_key
from pipeline.storage.tables import read_table
from tests.evaluation.conftest import points_of
from tests.learners.small import small_learner

CPU = torch.device("cpu")
SIZES = (
    "task.corridor=3",
    "task.max_episode_steps=12",
    "network.width=8",
    "network.context=64",
    "learner={name: ppo, num_updates: 6, num_envs: 8, rollout_steps: 8, evaluate_every: 3, validation_rows: 20, keep: [last, best]}",
    "evaluate={rows: 30, corridors: [3, 5]}",
)
SequentialMixer = tuple[Plan, Path, str]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> SequentialMixer:
    results = tmp_path_factory.mktemp("played") / "results"
    plan = make_plan(expand(document_of_point("t_maze", Path("config.yaml"), SIZES, ignore_config=True)))
    code, table = run_plan(plan, results)
    assert code == 0
    return plan, results, table


def test_an_environment_has_no_training_data(chain: SequentialMixer) -> None:
    plan, results, _ = chain
    (run,) = plan.runs.values()
    assert run.spec["data"]["train"] is None and run.data == [run.spec["data"]["validation"]]
    assert sorted(dataset.spec["split"] for dataset in plan.datasets.values()) == ["test", "test", "validation"]
    (network,) = plan.networks.values()
    assert network["sizes"] == {"observation": [16], "actions": [4]}
    config = json.loads((results / "runs" / run.id / "model" / "config.json").read_text())
    assert config["networks"]["model"]["sizes"] == {"observation": [16], "actions": [4]} and set(config["checkpoints"]) == {"last", "best"}
    environment = json.loads((results / "runs" / run.id / "environment.json").read_text())
    assert environment["reproducible"] and environment["budget"] == "num_updates"
    (entry,) = read_spec(results / "experiments" / "try" / "experiment.yaml")["runs"]
    assert (entry["chance"], entry["batch"]) == (0.5, 64)


def test_history_tells_of_episodes_and_updates(chain: SequentialMixer) -> None:
    plan, results, _ = chain
    history = load_run(next(iter(plan.runs)), results).history
    assert history["step"].tolist() == [0, 3, 6] and history["rows"].tolist() == [0, 192, 384]
    for name in ("validation_accuracy", "validation_return", "validation_episode_length", "learning_rate"):
        assert bool(history[name].notna().to_numpy().all()), name
    for name in ("train_return", "train_episode_length", "entropy", "clip_fraction", "approximate_kl", "explained_variance", "advantage"):
        assert history[name].notna().tolist() == [False, True, True], name


def test_an_evaluation_is_the_episodes_as_they_were_played(chain: SequentialMixer) -> None:
    plan, results, _ = chain
    (item,) = plan.evaluations.values()
    run = load_run(item.run, results)
    network = run.network()
    assert isinstance(network, ActorCritic)
    found = run.evaluations[item.id]
    assert len(found) == 60
    for name in item.datasets:
        spec = read_spec(results / "datasets" / name / "dataset.yaml")
        config = load_component("task", spec["task"])
        held_out = open_episodes(results / "datasets" / name)
        played = play(network, implementation(config)(config), held_out, CPU)
        rows = found[found["dataset"] == name]
        assert rows["corridor"].tolist() == [config.corridor] * 30
        assert (rows["success"].tolist(), rows["episode_length"].tolist()) == (played.success.tolist(), played.length.tolist())
        assert rows["return"].tolist() == pytest.approx(played.episode_return.tolist())
        assert rows["best"].tolist() == pytest.approx([4 - 0.1 * (config.corridor - 1)] * 30)
        assert rows["state_bytes"].tolist() == [network.state_bytes(steps) for steps in played.length.tolist()]


def test_pictures_of_the_first_episodes_are_kept(chain: SequentialMixer) -> None:
    plan, results, _ = chain
    (item,) = plan.evaluations.values()
    for name, rows in load_run(item.run, results).evaluations[item.id].groupby("dataset"):
        assert rows["frames"].notna().tolist() == [True] * 2 + [False] * 28, name
        first = rows.iloc[0]
        count, height, width, channels = first["frames_shape"]
        assert count == min(PICTURES, first["episode_length"]) and channels == 3
        pictures = np.frombuffer(first["frames"], np.uint8).reshape(count, height, width, 3)
        assert len({picture.tobytes() for picture in pictures}) > 1
    episodes = read_table(results / "experiments" / "try" / "details.parquet").to_pylist()
    assert sorted((row["corridor"], row["row"]) for row in episodes) == [(3, 0), (3, 1), (5, 0), (5, 1)]
    assert all(row["label"] == "lstm" and row["frames"] for row in episodes)


def test_tables_speak_of_episodes(chain: SequentialMixer) -> None:
    _, results, table = chain
    assert "Episodes solved (%)" in table and "30 test episodes per point and seed" in table
    assert "| without memory | 50.0 | 50.0 |" in table and "environment steps" in table
    assert "| best possible | – | 3.60 |" in table and "loss" not in table
    rows = read_table(results / "experiments" / "try" / "results.parquet").to_pylist()
    assert [row["corridor"] for row in rows] == [3, 5]
    for row in rows:
        assert row["corridor_most_trained"] == 3 and "loss" not in row and "scored" not in row
        assert (row["accuracy_low"], row["accuracy_high"]) == wilson_interval(round(30 * row["accuracy"]), 30)
    curves = read_table(results / "experiments" / "try" / "curves.parquet").column_names
    assert {"validation_return", "validation_accuracy", "train_return"} <= set(curves)


def test_the_table_has_the_range_of_the_return(chain: SequentialMixer) -> None:
    _, results, table = chain
    for row in read_table(results / "experiments" / "try" / "results.parquet").to_pylist():
        assert row["return_lowest"] == pytest.approx(-0.1 * 11 - 1)
        assert row["return_highest"] == row["best_return"] == pytest.approx(4 - 0.1 * (row["corridor"] - 1))
        assert row["episode_limit"] == 12
    assert "return_range" not in table


def test_a_range_of_the_return_that_is_wrong_is_refused_in_one_line(chain: SequentialMixer, tmp_path: Path) -> None:
    _, results, _ = chain
    spec = read_spec(results / "experiments" / "try" / "experiment.yaml")
    (entry,) = spec["runs"]
    write_spec(tmp_path / "experiment.yaml", spec | {"runs": [entry | {"returns": [5.0, 6.0]}]})
    expected = rf"^evaluation of {entry['run']}: mean return \S+; expected one from 5 to 6, as evaluate\.return_range or the task says$"
    with pytest.raises(UserError, match=expected):
        collect(tmp_path / "experiment.yaml", results, tmp_path / "out")


def test_without_a_range_the_table_says_when_its_interval_holds(chain: SequentialMixer, tmp_path: Path) -> None:
    _, results, _ = chain
    spec = read_spec(results / "experiments" / "try" / "experiment.yaml")
    (entry,) = spec["runs"]
    write_spec(tmp_path / "experiment.yaml", spec | {"runs": [{key: value for key, value in entry.items() if key != "returns"}]})
    collect(tmp_path / "experiment.yaml", results, tmp_path / "out")
    assert read_table(tmp_path / "out" / "results.parquet").column("return_highest").null_count == 2
    assert "Set evaluate.return_range for an interval that holds" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_what_a_step_costs_is_collected(chain: SequentialMixer) -> None:
    plan, results, _ = chain
    (name,) = plan.networks
    (profile,) = read_table(results / "profiles" / f"{name}.parquet").to_pylist()
    assert profile["context"] == 64 and profile["step_seconds"] > 0
    heads = 2 * 8 * 128 + 128 * 5
    assert profile["step_macs"] == 16 * 8 + 2 * 8 * 4 * 8 + heads  # encoder, LSTM, heads
    assert profile["training_tokens_per_second"] > 0
    (cost,) = read_table(results / "experiments" / "try" / "costs.parquet").to_pylist()
    assert cost == {"label": "lstm", **profile}


def test_collecting_again_gives_the_same_bytes(chain: SequentialMixer, tmp_path: Path) -> None:
    _, results, _ = chain
    folder = results / "experiments" / "try"
    collect(folder / "experiment.yaml", results, tmp_path)
    for name in ("results.parquet", "curves.parquet", "details.parquet", "table.md", "table.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_evaluating_again_gives_the_same_bytes(chain: SequentialMixer, tmp_path: Path) -> None:
    plan, results, _ = chain
    (item,) = plan.evaluations.values()
    datasets = [results / "datasets" / name for name in item.datasets]
    evaluate(results / "runs" / item.run / "run.yaml", datasets, tmp_path / "again.parquet", device="cpu")
    assert (tmp_path / "again.parquet").read_bytes() == (results / "evaluations" / item.run / f"{item.id}.parquet").read_bytes()
    evaluate(results / "runs" / item.run / "run.yaml", datasets[:1], tmp_path / "best.parquet", "best", device="cpu")
    assert read_table(tmp_path / "best.parquet").num_rows == 30


def test_a_maze_of_another_size_is_refused_in_one_line(chain: SequentialMixer, tmp_path: Path) -> None:
    from pipeline.tasks.generate import generate_shard, seal_dataset

    plan, results, _ = chain
    spec = dict(plan.datasets[next(iter(plan.datasets))].spec)
    folder = tmp_path / "other"
    write_spec(folder / "dataset.yaml", {**spec, "id": "other", "rows": 4, "task": {**spec["task"], "distractors": 2}})
    generate_shard(folder, 0)
    seal_dataset(folder)
    (run,) = plan.runs
    with pytest.raises(UserError, match=r"^other: observation of \[12\], but the network of .* was made for \[16\]$"):
        evaluate(results / "runs" / run / "run.yaml", [folder], tmp_path / "out.parquet", device="cpu")


def test_scores_of_played_points() -> None:
    success, returns, length = [1, 0, 1, 1], [3.0, -1.0, 2.0, 4.0], [5, 9, 7, 7]
    columns = {"dataset": ["d"] * 4, "row": range(4), "corridor": [5, 9, 9, 9], "state_bytes": [8] * 4, "success": success}
    table = pa.table({**columns, "return": returns, "episode_length": length, "best": [3.6, 3.2, 3.2, 3.2]})
    first, last = points_of(table, "episodes", 0.0, chance=0.5)
    low, high = wilson_interval(2, 3)
    least, most = stats.t.interval(0.95, 2, loc=5 / 3, scale=stats.sem([-1.0, 2.0, 4.0]))
    assert last == {
        "corridor": 9, "rows": 3, "accuracy": 2 / 3, "accuracy_low": low, "accuracy_high": high, "chance": 0.5, "return": pytest.approx(5 / 3),
        "return_low": pytest.approx(least), "return_high": pytest.approx(most),
        "best_return": pytest.approx(3.2), "episode_length": pytest.approx(23 / 3), "episode_limit": None, "state_bytes": 8,
    }  # fmt: skip
    assert (first["accuracy"], first["best_return"]) == (1.0, 3.6)
    assert points_of(table.drop_columns(["best"]), "episodes")[0]["best_return"] is None
    assert measurement_named("episodes").details(table) is None


@pytest.mark.parametrize("steps", [1, 3, 8, 9, 40, 333])
def test_a_strip_spreads_from_the_first_step_to_the_last(steps: int) -> None:
    strip = Strip()
    for step in range(steps):
        strip.add(np.full((2, 3, 3), step % 256, np.uint8))
        assert len(strip.kept) < 4 * PICTURES
    pictures = strip.pictures()
    assert pictures.shape == (min(steps, PICTURES), 2, 3, 3)
    shown = [int(picture[0, 0, 0]) for picture in pictures]
    assert shown[0] == 0 and shown[-1] == (steps - 1) % 256
    if 8 <= steps <= 256:
        assert np.diff(shown).max() <= 2 * np.diff(shown).min() + 1


def test_large_pictures_are_kept_small() -> None:
    strip = Strip()
    strip.add(np.zeros((400, 600, 3), np.uint8))
    assert strip.pictures().shape == (1, 80, 120, 3)


def test_an_environment_that_draws_nothing_is_measured_all_the_same() -> None:
    learner: Any = small_learner("gru", "gymnasium", "ppo")
    config = Gymnasium(max_episode_steps=10)
    task = implementation(config)(config)
    environment = task.environment

    def blind(batch: int, seed: int) -> Any:
        made = environment(batch, seed)

        def render() -> Any:
            raise UserError("nothing to see")

        made.render = render
        return made

    task.environment = blind
    held_out = Episodes("cart", pa.Table.from_batches([task.episodes(5, derive_key("cart"), "test")]))
    table = measured(learner.network, task, held_out, "cart", measurement_named("episodes"), CPU)
    assert "frames" not in table.column_names and table.num_rows == 5 and "best" not in table.column_names


def test_success_is_missing_where_nothing_defines_it() -> None:
    learner: Any = small_learner("gru", "gymnasium", "ppo")
    for reward_threshold, expected in ((None, [None] * 3), (1.0, [1] * 3)):
        config = Gymnasium(max_episode_steps=10, reward_threshold=reward_threshold)
        task = implementation(config)(config)
        held_out = Episodes("cart", pa.Table.from_batches([task.episodes(3, derive_key("cart"), "test")]))
        table = measured(learner.network, task, held_out, "cart", measurement_named("episodes"), CPU)
        assert table.column("success").to_pylist() == expected
        (point,) = points_of(table, "episodes", chance=0.0)
        assert point.get("accuracy") == (None if reward_threshold is None else 1.0) and point["chance"] is None and point["return"] > 0
