"""What the catalogue's modules are made of: sections, components and the few types they share."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticKnownError

SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}


class FieldConflict(ValueError):
    """Fields of one block that do not go together; the error is shown at the one of `fields` that was written last."""

    def __init__(self, message: str, *fields: str) -> None:
        super().__init__(message)
        self.fields = fields


class Section(BaseModel):
    """A block of the config. Unknown keys are errors; values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(Section):
    """A named entry of the catalogue: fields a user may write, a version, and where its code lives.

    `version` goes up when a default or the meaning of a field changes, so that what used the component runs again.
    A new field with a neutral default needs no new version: identifiers cover only what differs from the defaults.
    """

    version: ClassVar[int] = 1
    implementation: ClassVar[str] = ""
    source: ClassVar[str] = ""

    name: str


def parse_count(value: Any) -> Any:
    """Read `500_000`, `0.5M` or `300k` as a whole number, with suffixes from k to P; anything else is left for pydantic to judge."""
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    text = value.strip().replace("_", "").lower()
    factor = SUFFIXES.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    try:
        number = Decimal(digits) * factor
    except ArithmeticError:
        return value
    whole = number.is_finite() and number.adjusted() < 30 and number == number.to_integral_value()
    return int(number) if whole else value


EXAMPLES: dict[str, Any] = {"examples": [300_000, "300k", "0.5M"]}

Count = Annotated[int, Field(ge=1, le=10**12, json_schema_extra=EXAMPLES), BeforeValidator(parse_count)]
"""A positive whole number; `300k` and `0.5M` are understood."""

Rows = Annotated[int, Field(ge=1, le=10**9, json_schema_extra=EXAMPLES), BeforeValidator(parse_count)]
"""Rows of a stored dataset."""

Flops = Annotated[int, Field(ge=1, le=10**21, json_schema_extra={"examples": [2 * 10**15, "2P", "0.5T"]}), BeforeValidator(parse_count)]
"""A number of floating-point operations."""


def _updates_or_fraction(value: Any) -> str:
    return "fraction" if isinstance(value, float) and 0 < value < 1 else "updates"


WarmUp = Annotated[
    Annotated[Annotated[int, Field(ge=0, le=10**12)], Tag("updates")] | Annotated[Annotated[float, Field(gt=0, lt=1)], Tag("fraction")],
    Discriminator(_updates_or_fraction),
]
"""A number of updates, or a fraction of the budget."""


class Distribution(Section):
    """Integers sampled once per row from `low..high`, both included: uniformly, or log-uniformly."""

    uniform: tuple[int, int] | None = Field(
        default=None, description=("Range [low, high], both included, every value equally likely. Use it when all sizes matter alike.")
    )
    log_uniform: tuple[int, int] | None = Field(
        default=None,
        description=("Range [low, high], both included, every doubling equally likely. Use it when sizes span more than a factor of ten."),
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Distribution:
        given = [bounds for bounds in (self.uniform, self.log_uniform) if bounds]
        if len(given) != 1:
            found = "both" if given else "neither"
            raise FieldConflict(f"got {found}; expected exactly one of 'uniform' and 'log_uniform'", "uniform", "log_uniform")
        if not 1 <= given[0][0] <= given[0][1] <= 2**24:
            raise FieldConflict(f"got {list(given[0])}; expected 1 <= low <= high <= {2**24}", "uniform", "log_uniform")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest value, both included."""
        bounds = self.uniform or self.log_uniform
        assert bounds is not None
        return bounds

    @property
    def kind(self) -> Literal["uniform", "log_uniform"]:
        """How values between the bounds are drawn."""
        return "uniform" if self.uniform else "log_uniform"


def _number_or_distribution(value: Any) -> str:
    return "distribution" if isinstance(value, dict | Distribution) else "number"


Draw = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=2**24)], Tag("number")] | Annotated[Distribution, Tag("distribution")],
    Discriminator(_number_or_distribution),
]
"""A fixed positive whole number, or a distribution of them."""


def largest(draw: int | Distribution) -> int:
    """The largest value a draw can give."""
    return draw.bounds[1] if isinstance(draw, Distribution) else draw


def smallest(draw: int | Distribution) -> int:
    """The smallest value a draw can give."""
    return draw.bounds[0] if isinstance(draw, Distribution) else draw


def canonical(section: Section) -> dict[str, Any]:
    """What an identifier covers: the fields that differ from their defaults, and each component's name and version.

    Two configs with the same meaning have the same canonical form, whatever was spelled out and in which order.
    """
    block: dict[str, Any] = {}
    if isinstance(section, Component):
        block = {"name": section.name, "version": type(section).version}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        default = key == "name" or value == field.get_default(call_default_factory=True)
        if not default or isinstance(value, Component):
            block[key] = _plain(value)
    return dict(sorted(block.items()))


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return canonical(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def filled(section: Section) -> dict[str, Any]:
    """Every field with its value, defaults included, and each component's version: what `run.yaml` shows."""
    block: dict[str, Any] = {}
    for key in type(section).model_fields:
        value = getattr(section, key)
        block[key] = filled(value) if isinstance(value, Section) else _as_lists(value)
        if key == "name" and isinstance(section, Component):
            block["version"] = type(section).version
    return block


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [filled(item) if isinstance(item, Section) else _as_lists(item) for item in value]
    return value
