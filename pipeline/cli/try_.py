"""`pipeline try`: one experiment point in this process, without Snakemake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.param_types import FILE, OutFolder
from pipeline.storage.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.document import YamlMapping

DEFAULT_CONFIG = Path("config.yaml")
"""Read if it exists."""
DEFAULTS = {"tokens": ("sequence", "supervised", 20_000), "environment": ("actor_critic", "ppo", 102_400)}
"""Network, learner and its budget in rows or environment steps for a task of each kind, if no experiment gives them."""


def document_of_point(name: str, config: Path, overrides: tuple[str, ...], ignore_config: bool = False, section: str = "") -> YamlMapping:
    """Build a config document with one point: the base of experiment `name`, else the task `name` with defaults, with overrides applied.

    Its `runtime` is that of the config. overrides: `dotted.key=value`, the value in YAML. section: the part of the point that their keys are
    in; empty: the point. Raises ConfigError for an invalid key or value.
    """
    from pipeline.config.document import Location, YamlMapping, put_dotted, suggestion, with_name
    from pipeline.config.learners import LEARNERS
    from pipeline.config.tasks import TASKS

    here = Location("--set", 0, "")
    absent = ignore_config or (config == DEFAULT_CONFIG and not config.exists())
    known = YamlMapping(here) if absent else _validated(config)
    experiments = known.get("experiments", {})
    if name in experiments:
        base = experiments[name]["base"].copy()
    elif name in TASKS:
        base = YamlMapping(here)
        base.put("task", with_name(name, here), here)
        task: Any = TASKS[name]
        network, learner, budget = DEFAULTS[task.kind]
        base.put("network", with_name(network, here), here)
        base.put("learner", with_name(learner, here), here)
        base["learner"].put(LEARNERS[learner].budgets[0], budget, here)
    else:
        where = "not a task" if ignore_config else f"neither an experiment of {config} nor a task"
        raise UserError(f"{name}: {where}" + suggestion(name, [*experiments, *TASKS]))
    written: set[str] = set()
    for override in overrides:
        key, value, location = _parse(override)
        key = f"{section}.{key}" if section else key
        for budget in _budgets(base, key):
            if budget not in written:
                put_dotted(base, budget, None, location)
        put_dotted(base, key, value, location)
        written.add(key)
    document, inner, experiment = YamlMapping(here), YamlMapping(here), YamlMapping(here)
    experiment.put("base", base, here)
    inner.put("try", experiment, here)
    document.put("experiments", inner, here)
    if "runtime" in known:
        document.put("runtime", known["runtime"], known.locations["runtime"])
    return document


def _budgets(base: YamlMapping, key: str) -> list[str]:
    """Return the keys of the learner's budgets if `key` is one of them: setting one clears the others."""
    from pipeline.config.expand import with_presets
    from pipeline.config.learners import LEARNERS

    learner = with_presets(base.get("learner"))
    component = LEARNERS.get(str(learner.get("name") if isinstance(learner, dict) else learner))
    budgets = [f"learner.{budget}" for budget in component.budgets] if component else []
    return budgets if key in budgets else []


def _validated(config: Path) -> YamlMapping:
    """Read and validate a config file."""
    from pipeline.config.document import read_document
    from pipeline.config.expand import expand

    document = read_document(config)
    expand(document)
    return document


def _parse(override: str) -> tuple[str, Any, Any]:
    from pipeline.config.document import Location, read_text

    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected dotted.key=value, for example task.delay=160")
    block = read_text(f"value: {text}", f"--set {override}")
    return key.strip(), block["value"], Location(f"--set {override}", 0, key.strip())


@click.command("try")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, for example task.delay=160. Repeatable.")
@click.option("--config", type=FILE, default="config.yaml", help="Config file in which NAME is looked up.")
@click.option("--out", type=OutFolder(".pipeline/plan.json"), default="results/try", help="Output folder; finished parts are reused.")
def try_(name: str, overrides: tuple[str, ...], config: Path, out: Path) -> int:
    """Train and evaluate one configuration in this process, without Snakemake.

    It generates the data, trains, evaluates and prints the result. NAME is an experiment of the config (its base, without sweep, variants
    and tune) or a task with defaults.

    \b
      pipeline try copy --set task.delay=160 --set learner.rows=32k
      pipeline try copy --set network.mixer=gru --set network.width=32
    """
    from pipeline.config.expand import expand
    from pipeline.in_process import run_plan
    from pipeline.plan import make_plan
    from pipeline.results_lock import acquire_lock

    plan = make_plan(expand(document_of_point(name, config, overrides)))
    with acquire_lock(out, snakemake=out / ".snakemake"):
        code, table = run_plan(plan, out)
    click.echo(table, nl=False)
    return code
