"""Cross-field checks: of one point, of the points of an experiment, and between experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pipeline.config.base import Distribution, FieldConflict, canonical
from pipeline.config.document import PRESETS, Location, YamlMapping, shown, suggestion
from pipeline.config.figures import Figure
from pipeline.config.learners import LEARNERS
from pipeline.config.networks import NETWORKS, SMALLEST_IMAGE, ActorCritic
from pipeline.config.points import ExpandedExperiment, ExpandedPoint
from pipeline.config.tasks import TASKS, Column, EnvironmentTask, Task
from pipeline.storage.digest import canonical_json

WEIGHTLESS = ("dropout", "context")
"""Fields of a network without effect on its weights, which a child may set otherwise than its parent."""

ROWS = {"tokens": "tokens", "environment": "steps"}
"""What a row of a task is made of."""
TASK_KINDS = {"tokens": "token tasks", "environment": "environments"}
A_TASK = {"tokens": "a token task", "environment": "an environment"}


def location_of(written: YamlMapping, *paths: str) -> Location:
    """Where the user wrote the dotted paths: the last of their lines.

    For a block that was overridden in part, the location of the override. For a value from a preset, the location of the component that names it.
    """
    return max((_location(written, path) for path in paths), key=lambda location: location.line)


def _location(written: YamlMapping, path: str) -> Location:
    value: Any = written
    here = written.location
    for key in path.split("."):
        if not isinstance(value, YamlMapping) or key not in value:
            break
        if _in_preset(value.locations[key]):
            break
        here, value = value.locations[key], value[key]
    locations = value.locations.values() if isinstance(value, YamlMapping) else ()
    overriding = [location for location in locations if not location.path.startswith(here.path) and not _in_preset(location)]
    return max(overriding, key=lambda location: location.line, default=here)


def _in_preset(location: Location) -> bool:
    return Path(location.file).parent == PRESETS


def check_kinds(written: YamlMapping) -> None:
    """Network and learner are for the kind of task. Called on names alone, before the settings of a component that does not fit are read."""
    task = TASKS.get(_name_of(written.get("task")))
    for key, components in (("network", NETWORKS), ("learner", LEARNERS)):
        part: Any = components.get(_name_of(written.get(key)))
        if task and part and not _fits(part, task):
            named = [f"{place}.name" if isinstance(written[place], YamlMapping) else place for place in ("task", key)]
            fit = sorted(name for name, other in components.items() if _fits(other, task))
            made_for = "puzzles on grids" if part.grid else TASK_KINDS[part.kind]
            message = f"{_name_of(written[key])} is for {made_for}, {_name_of(written['task'])} is {A_TASK[task.kind]}"
            raise location_of(written, *named).error(f"{message}; expected {key}: {' or '.join(fit)}")


def _fits(part: Any, task: Any) -> bool:
    """Whether a network or learner is for the kind of task."""
    return part.kind == task.kind and (task.grid or not part.grid)


def _name_of(written: Any) -> str:
    return str(written.get("name") if isinstance(written, YamlMapping) else written)


def check_point(member: ExpandedPoint, written: YamlMapping) -> None:
    """Cross-field checks for one run."""
    point = member.point
    if isinstance(point.task, EnvironmentTask) and point.task.endless:
        message = (
            f"{point.task.title} has no time limit of its own; expected task.max_episode_steps, steps after which an episode is cut off"
        )
        raise location_of(written, "task.id").error(message)
    if refusal := member.measurement.refusal(point.task):
        raise location_of(written, "task", "evaluate.measurement").error(refusal)
    _check_sizes(member, written)
    _check_chains(member, written)
    if getattr(point.network, "tie_embeddings", False) and point.task.tolerance is not None:
        raise location_of(written, "network.tie_embeddings").error(
            f"{point.task.name} is answered by real numbers; expected false: they have no embedding"
        )
    if isinstance(point.task, EnvironmentTask) and isinstance(point.network, ActorCritic):
        _check_encoder(point.task, point.network, written)
    curriculum = getattr(point.learner, "curriculum", None)
    if curriculum and curriculum.column not in point.task.columns:
        here = location_of(written, "learner.curriculum.column")
        raise here.error(f"{point.task.name} has no column {curriculum.column!r}" + suggestion(curriculum.column, point.task.columns))
    _check_mixers(member, written)
    if point.learner.grid and not point.network.recursive:
        fit = sorted(name for name, kind in NETWORKS.items() if kind.recursive)  # pyright: ignore[reportAttributeAccessIssue]
        message = f"{point.learner.name} trains a network that answers in steps, {point.network.name} answers once"
        raise location_of(written, "network", "learner").error(f"{message}; expected network: {' or '.join(fit)}")
    if point.learner.grid:
        _check_attempts(point.learner, point.network, written)
    most, wanted = getattr(point.task, "validation_rows", None), getattr(point.learner, "validation_rows", 0)
    if most is not None and wanted > most:
        message = f"got {wanted:,} rows; expected at most {most:,}, the held-out test pairs and their symmetries"
        raise location_of(written, "learner.validation_rows", "task").error(message)


def _check_attempts(learner: Any, network: Any, written: YamlMapping) -> None:
    """Several attempts at a row differ from the start, or by noise; gradients pass through cycles that there are."""
    if isinstance(learner.gradient, int) and learner.gradient > network.outer:
        raise location_of(written, "learner.gradient", "network.outer").error(
            f"got {learner.gradient} cycles with gradients of network.outer = {network.outer}; expected at most that, or all"
        )
    if not learner.noise and learner.attempts > network.different_starts:
        message = (
            f"{learner.attempts} attempts start alike with network.starts = {network.starts}; expected as many starts, or start: random"
        )
        raise location_of(written, "learner.attempts", "network.starts").error(message)


def _check_chains(member: ExpandedPoint, written: YamlMapping) -> None:
    """Several attempts at a puzzle differ by noise or by their starts."""
    settings, network = member.measurement, cast("Any", member.point.network)
    chains = getattr(settings, "chains", 1)
    if chains > 1 and network.recursive and not settings.noise and chains > network.different_starts:
        what = f"that start alike with network.starts = {network.starts}" if network.starts > 1 else "that are all the same"
        raise location_of(written, "evaluate.chains", "evaluate").error(
            f"got {chains} attempts {what}; expected noise above 0, or network.start: random"
        )


def _check_mixers(member: ExpandedPoint, written: YamlMapping) -> None:
    """Networks that see later positions, or need square grids, are for tasks that show whole grids."""
    point = member.point
    whole = [mixer.name for mixer, _ in getattr(point.network, "blocks", []) if mixer.needs_grid or not mixer.causal]
    whole += [] if point.network.causal else [point.network.name]
    if whole and not point.task.grid:
        message = f"{whole[0]} reads whole grids in all directions, rows of {point.task.name} are read forwards; expected a causal mixer"
        raise location_of(written, "task", "network.mixer").error(message)


def _check_sizes(member: ExpandedPoint, written: YamlMapping) -> None:
    """Rows fit the network's context, and the evaluation's rows have the sizes of the task's."""
    task, network, measured = member.point.task, member.point.network, _measured(member, written)
    longest = max([task, *measured], key=lambda task: task.longest)
    if longest.longest > network.context:
        here = location_of(written, "task" if longest is task else "evaluate", "network.context")
        rows = f"rows of {longest.longest} {ROWS[task.kind]}"
        raise here.error(f"{rows} exceed network.context = {network.context}; expected at most that")
    for other in measured:
        for key, size in task.sizes.items():
            if other.sizes.get(key) == size or (key == "cells" and not network.fixed_length):
                continue
            why = ": the network is made for rows of one length" if key == "cells" else ""
            raise location_of(written, "evaluate").error(
                f"a point of the evaluation has {key} {other.sizes.get(key)}, the task {size}; expected the same{why}"
            )


def _check_encoder(task: EnvironmentTask, network: ActorCritic, written: YamlMapping) -> None:
    """Convolutions need an image, and one that is not too small for them."""
    shape, kind = task.observation
    if network.encoder == "nature_cnn" and (kind != "pixels" or min(shape[:2]) < SMALLEST_IMAGE):
        size = " x ".join(map(str, shape))
        message = f"nature_cnn reads images of {SMALLEST_IMAGE} pixels or more a side, {task.name} shows a {kind} of {size}"
        raise location_of(written, "task", "network.encoder").error(f"{message}; expected encoder: none or mlp")


def _measured(member: ExpandedPoint, written: YamlMapping) -> list[Task]:
    """What the evaluation measures; a point of it may be impossible though the task itself is right."""
    try:
        return member.measured
    except FieldConflict as clash:
        named = [f"evaluate.{field}" for field in clash.fields] or ["evaluate"]
        raise location_of(written, *named).error(f"{clash}, in a point of the evaluation") from None


def check_members(members: list[ExpandedPoint]) -> None:
    """All tasks are of one kind and measured in one way, and no two points are the same run."""
    seen: dict[str, ExpandedPoint] = {}
    for member in members:
        kinds = [one.point.task.kind for one in (members[0], member)]
        if len(set(kinds)) > 1:
            raise member.location.error(f"a task of kind {kinds[1]} beside one of kind {kinds[0]}; expected one kind in an experiment")
        ways = [canonical(one.measurement) for one in (members[0], member)]
        if ways[0] != ways[1]:
            names = [f"{one.point.task.name} by {one.measurement.name}" for one in (members[0], member)]
            raise member.location.error(f"{names[1]} is measured in another way than {names[0]}; expected one measurement in an experiment")
        twin = seen.setdefault(canonical_json(member.block), member)
        if twin is not member:
            names = " and ".join(_point_name(one) for one in (twin, member))
            raise member.location.error(f"equal points: {names}; expected different ones")


def _point_name(member: ExpandedPoint) -> str:
    """Return a point's coordinates, and its variant if it is one."""
    coordinates = ", ".join(f"{key}: {shown(value)}" for key, value in member.coordinates.items())
    variant = f"variant {member.variant}" if member.variant else ""
    return " with ".join(part for part in (variant, coordinates) if part) or "base"


def check_figures(experiment: ExpandedExperiment) -> None:
    """Every task of the experiment has the columns that its figures draw, and is measured at the points that they ask for."""
    kind = experiment.members[0].measurement
    for figure, location in zip(experiment.figures, experiment.figure_locations, strict=True):
        _check_points(figure, experiment, location)
        _check_tuned(figure, experiment, location)
        if figure.measurements and kind.name not in figure.measurements:
            wanted, task = " or ".join(figure.measurements), experiment.members[0].point.task.name
            raise location.error(f"{task} is measured by {kind.name}; expected {wanted}, which {figure.name} draws")
        _check_networks(figure, experiment, location)
        metric = None if figure.tuned else getattr(figure, "metric", None)
        if metric is not None and metric not in kind.scores:
            raise location.error(f"metric: {kind.name} has no score {metric!r}{suggestion(metric, kind.scores)}")
        for member in experiment.members:
            task = member.point.task
            columns = columns_of(member)
            missing = [column for column in figure.columns if column not in columns]
            if missing:
                where = suggestion(missing[0], columns)
                raise location.error(f"{figure.name} draws the column {missing[0]!r}, which {task.name} does not have{where}")
            if figure.sized and not set(task.columns) & set(type(task).model_fields):
                message = f"{figure.name} compares sizes of training tasks; {task.name} has no field that is a metadata column"
                raise location.error(message)


def _check_networks(figure: Figure, experiment: ExpandedExperiment, location: Location) -> None:
    """Some network of the experiment is of the kind that the figure shows."""
    points = [member.point for member in experiment.members]
    if figure.halting and not any(point.learner.grid for point in points):
        raise location.error(f"no run is trained by deep_supervision; expected one, as {figure.name} shows how networks halt")
    if figure.recursive and not any(point.network.recursive for point in points):
        raise location.error(f"no network is recursive; expected one, as {figure.name} shows how latents change")


def _check_points(figure: Figure, experiment: ExpandedExperiment, location: Location) -> None:
    """The points that `at` names are measured."""
    for column, value in getattr(figure, "at", {}).items():
        columns = [name for name in columns_of(experiment.members[0]) if name not in figure.columns]
        if column not in columns:
            expected = f"expected one of {', '.join(columns)}" if columns else "there is none to choose"
            raise location.error(f"at: {figure.name} cannot choose {column!r}{suggestion(column, columns) or f'; {expected}'}")
        measured = {value for member in experiment.members for value in _measured_values(member, column)}
        names = {name for member in experiment.members for name in _categories(member.point.task, column)}
        if any(isinstance(found, Distribution) or found is None for found in measured) and (value in names or isinstance(value, int)):
            continue
        if value not in measured:
            known = sorted(map(str, measured), key=lambda text: (len(text), text))
            raise location.error(f"at.{column}: got {shown(value)}; expected a measured value: {', '.join(known)}")


def columns_of(member: ExpandedPoint) -> dict[str, Column]:
    """The columns that make the points of an evaluation: the task's metadata, and the coordinates of the measurement."""
    return {**{name: column for name, column in member.point.task.columns.items() if column.point}, **member.measurement.coordinates}


def _measured_values(member: ExpandedPoint, column: str) -> list[Any]:
    """The values of a column at the points of a member's evaluation."""
    if column in member.measurement.coordinates:
        return list(getattr(member.measurement, column))
    return [getattr(task, column, None) for task in member.measured]


def _check_tuned(figure: Figure, experiment: ExpandedExperiment, location: Location) -> None:
    """A figure of what was tried has a tuned experiment, and one that names a key an experiment that tunes this key."""
    if not figure.tuned:
        return
    if not experiment.tune_seeds:
        raise location.error(f"expected a section 'tune', of which {figure.name} draws the trials")
    tuned, key = experiment.members[0].tuned, getattr(figure, "key", None)
    if key is not None and key not in tuned:
        raise location.error(f"key: {key!r} is not tuned{suggestion(key, tuned)}")


def _categories(task: Task, column: str) -> tuple[str, ...]:
    return task.columns[column].categories if column in task.columns else ()


def check_parents(experiments: list[ExpandedExperiment]) -> None:
    """Every parent exists, is one run and has weights that fit; no run descends from itself."""
    for experiment in experiments:
        for member in experiment.members:
            seen = [member]
            while seen[-1].point.learner.parent:
                parent = find_parent(experiments, seen[-1])
                if any(parent.point == earlier.point for earlier in seen):
                    raise member.location.error(f"{member.point.learner.parent} leads back to the same run; expected a chain that ends")
                _check_weights(seen[-1], parent)
                seen.append(parent)


def _check_weights(child: ExpandedPoint, parent: ExpandedPoint) -> None:
    """A child that takes over its parent's whole network must have the same one."""
    if not child.point.learner.same_network:
        return
    one, other = _shape(child), _shape(parent)
    solved = {"width", "parameters"} if "auto" in (one.get("width"), other.get("width")) else set()
    different = sorted(key for key in (one.keys() | other.keys()) - solved if one.get(key) != other.get(key))
    if different:
        name = child.point.learner.parent
        raise child.location.error(f"{name} differs in {', '.join(different)}; expected a network of the same weights")


def _shape(member: ExpandedPoint) -> dict[str, Any]:
    task, network = member.point.task, canonical(member.point.network)
    shape = {key: value for key, value in network.items() if key not in WEIGHTLESS}
    sizes = {key: size for key, size in task.sizes.items() if key != "cells" or member.point.network.fixed_length}
    return {**shape, **sizes}


def find_parent(experiments: list[ExpandedExperiment], child: ExpandedPoint) -> ExpandedPoint:
    """The member whose weights `child` starts from: of the named experiment and variant, with the same seed."""
    written = str(child.point.learner.parent)
    name, _, variant = written.partition("/")
    known = {experiment.name: experiment for experiment in experiments}
    complain = child.location.error
    if name not in known:
        raise complain(f"no experiment {shown(name)}" + suggestion(name, known))
    if known[name].tune_seeds:
        raise complain(f"{name} is tuned, so its run is not known in advance; expected an experiment without tune")
    members = known[name].members
    variants = sorted({member.variant for member in members if member.variant})
    if variant and variant not in variants:
        raise complain(f"{name} has no variant {shown(variant)}" + (suggestion(variant, variants) or "; expected no '/'"))
    same = [member for member in members if member.variant == (variant or None) and member.point.seed == child.point.seed]
    points = [member for index, member in enumerate(same) if member.point not in [earlier.point for earlier in same[:index]]]
    if len(points) != 1:
        found = "no run" if not points else f"{len(points)} runs"
        raise complain(f"{written} has {found} with seed {child.point.seed}; expected exactly one")
    return points[0]
