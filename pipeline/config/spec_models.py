"""Pydantic models of spec files: names, types and bounds are checked, since anybody may have written one.

The components inside (task, network, learner) are checked by their own classes, by `load_component`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.config.document import shown
from pipeline.config.validation import EXPECTED
from pipeline.storage.paths import is_name


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"got the name {value!r:.80}; expected letters, digits, - and _")
    return value


Name = Annotated[str, AfterValidator(_name)]
"""What becomes part of a path."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Component(_Frozen):
    name: str
    version: int


class _Learner(_Component):
    parent: Name | None = None


class _Data(_Frozen):
    train: Name | None
    validation: Name


class RunSpec(_Frozen):
    """`run.yaml`."""

    id: Name
    task: _Component
    network: _Component
    learner: _Learner
    seed: int = Field(ge=0, lt=2**32)
    data: _Data


class DatasetSpec(_Frozen):
    """`dataset.yaml`."""

    id: Name
    task: _Component
    split: Literal["train", "validation", "test"]
    rows: int = Field(ge=0, le=10**9)
    shards: int = Field(ge=1, le=10**5)


_Size = Annotated[int, Field(ge=1, le=10**6)]


class NetworkSpec(_Frozen):
    """`profiles/{network}.yaml`: a network, and the sizes of the task it is made for."""

    id: Name
    network: _Component
    sizes: dict[str, bool | _Size | Annotated[list[_Size], Field(min_length=1, max_length=1000)]] = Field(min_length=1)


class _Entry(_Frozen):
    run: Name
    evaluation: Name
    network: Name
    label: str
    variant: str | None
    seed: int = Field(ge=0, lt=2**32)
    coordinates: dict[str, Any]
    task: str = ""
    chance: float = Field(ge=0, le=1)
    baseline: float = Field(ge=-1e9, le=1e9)
    unit: str = ""
    returns: Annotated[list[float | None], Field(min_length=2, max_length=2)] | None = None
    limit: int | None = None
    batch: int | None = None


class ExperimentSpec(_Frozen):
    """`experiment.yaml`."""

    name: Name
    columns: list[str]
    runs: list[_Entry] = Field(min_length=1)


SPECS: dict[str, type[_Frozen]] = {"run": RunSpec, "dataset": DatasetSpec, "network": NetworkSpec, "experiment": ExperimentSpec}


def complaint(kind: str, block: dict[str, Any]) -> str | None:
    """What is wrong with a specification of a kind, in one line; None where nothing is."""
    try:
        SPECS[kind].model_validate(block)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        if first["type"] == "missing":
            return f"missing key '{where}'"
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] in EXPECTED:
            what = f"got {shown(first['input'])}, expected {EXPECTED[first['type']].format(**first.get('ctx', {}))}"
        return f"{where}: {what[:1].lower()}{what[1:]}" if where else what
    return None
