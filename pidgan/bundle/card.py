"""The card: a generator's description, its training and its validation.

Everything after training sees a generator only through the `Generator` protocol: a
card, and a function from conditions and standard normal noise to targets, both in
physical units (MeV, mm, ns, rad). A bundle carries its card as JSON.
"""

import json
import math
import re
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pidgan.bundle.noise import UInt64Array, entry_keys, keyed_normal
from pidgan.errors import BundleError, repeated
from pidgan.files.mapped import row_blocks
from pidgan.notebook import Facts, count, shown
from pidgan.sample.definition import Sample, excluded_text
from pidgan.sample.variables import Variable

Float32Array = npt.NDArray[np.float32]

# Version of the schema; a new or removed field, or a new meaning, raises it.
SCHEMA_VERSION = 6
# Version of the card of a corrector, which older packages must refuse.
CORRECTOR_VERSION = 7
# Largest size of a card, so that reading is fast; a card has some 10^5 characters.
MAX_JSON_CHARACTERS = 16 * 2**20
MAX_JSON_DEPTH = 32
# Characters that control a terminal, and halves of characters: the categories Cc and Cs
# of Unicode, without line feed and tabulator.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Conditions, and targets, that are listed where a card is shown; showers have many.
MOST_LISTED = 8
SAMPLE_ROWS = 65_536  # rows at a time; noise of 64 numbers in a row takes 16 MiB


SIMULATED = "simulated"
"""Input of the graph of a corrector, and the column of its reference that is 1 for rows
of simulation and 0 for rows of data."""


FEW_STEPS = 100
"""A generator that was trained for fewer steps is poor, which its card says."""


class CardVariable(BaseModel):
    """One condition or target of a generator, in package units.

    `range` spans the values in training. Sentinels mean "no answer": rows with one fail
    a cut. `patterns` are default branches in an analysis ntuple (`{track}_P`,
    `nTracks`). Of targets, `atoms` are values that a finite share of rows takes
    exactly, sentinels among them, `step` is the distance of neighbours on a grid, and
    `orders` hold in all rows, such as "<= nRows".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    unit: str
    range: tuple[float, float]
    integer: bool = False
    categories: tuple[float, ...] = ()
    sentinels: tuple[float, ...] = ()
    patterns: tuple[str, ...] = ()
    atoms: tuple[float, ...] = ()
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    orders: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"range of {self.name} is ({low}, {high}), expected low < high"
            )
        return self


class CardLink(BaseModel):
    """One link of a chain: its targets, and how it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)
    family: str
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int
    steps: int = Field(ge=0)
    plan: str = ""
    n_noise: int = Field(ge=1)


@shown
class Card(BaseModel):
    """Description of a generator: its variables, its training and its validation.

    `plan` is the text that repeats a training whose budget changed the number of steps
    on the way; `dataset` has hash, rows in each part, sum of weights, n_eff, seed and
    files; `validation` has figures with their floors, `reference` name, sha256 and rows
    of the reference file; `self_test` has rows of conditions and noise, and their
    targets; `start` says which trained model the training began with, if any. A chain
    has `links`, whose steps add up to `steps`. A corrector has `simulated`, the targets
    as simulation has them, which come after the conditions in its input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    detector: str
    species: str
    conditions: tuple[CardVariable, ...] = Field(min_length=1)
    targets: tuple[CardVariable, ...] = Field(min_length=1)
    n_noise: int = Field(ge=1)
    sample: Sample
    dataset: dict[str, Any] = Field(default_factory=dict)
    family: str
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int
    steps: int = Field(ge=0)
    plan: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    validation: dict[str, Any] = Field(default_factory=dict)
    reference: dict[str, Any] | None = None
    self_test: dict[str, Any] | None = None
    links: tuple[CardLink, ...] = ()
    simulated: tuple[CardVariable, ...] = ()
    start: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [*self.condition_names, *self.target_names]
        if twice := repeated(names):
            raise ValueError(f"variables named more than once: {twice[:5]}")
        listed = [name for link in self.links for name in link.targets]
        if self.links and listed != list(self.target_names):
            raise ValueError("links have other targets than the generator")
        simulated = tuple(v.name for v in self.simulated)
        if simulated and simulated != self.target_names:
            raise ValueError("the simulated targets are other ones than the targets")
        return self

    @property
    def is_corrector(self) -> bool:
        """Whether simulated targets are corrected, rather than targets generated."""
        return bool(self.simulated)

    @property
    def has_cells(self) -> bool:
        """Whether the targets are the energies of the cells of a shower."""
        return self.sample.cells is not None

    @property
    def ports(self) -> dict[str, int]:
        """Widths of the inputs of the graph, by name."""
        ports = {"conditions": len(self.conditions)}
        if self.simulated:
            ports[SIMULATED] = len(self.simulated)
        return {**ports, "noise": self.n_noise}

    @property
    def inputs(self) -> tuple[CardVariable, ...]:
        """Columns of the input: the conditions, and for a corrector the targets."""
        return (*self.conditions, *self.simulated)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the columns of the input, in order."""
        return tuple(variable.name for variable in self.inputs)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions, in order."""
        return tuple(variable.name for variable in self.conditions)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(variable.name for variable in self.targets)

    def to_json(self) -> str:
        """Return the card as ASCII JSON, where null stands for NaN."""
        unused = {name for name in ("simulated", "start") if not getattr(self, name)}
        content = self.model_dump(mode="python", by_alias=True, exclude=unused)
        content = _plain(content)
        return json.dumps(content, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, where: str = "card") -> "Card":
        """Return the card that `to_json` wrote; `where` names its file in errors.

        A BundleError says that the text is damaged, or its schema too new.
        """
        try:
            content = _read_json(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where}: the card is not JSON ({error})") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int) or version < 1:
            raise BundleError(
                f"{where}: the card has schema_version {version!r}, expected a number "
                f"from 1 to {CORRECTOR_VERSION}"
            )
        if version > CORRECTOR_VERSION:
            raise BundleError(
                f"{where}: the card has schema version {version}, this package reads "
                f"up to {CORRECTOR_VERSION}: install a newer version"
            )
        try:
            return cls.model_validate(content, context={"written": True})
        except ValidationError as error:
            raise BundleError(f"{where}: {_first_problem(error)}") from error

    def _facts(self) -> Facts:
        return Facts(
            f"{self.sample.name}, {self.species}: {len(self.conditions)} conditions, "
            f"{len(self.targets)} targets, {self.family}",
            card_rows(self),
        )


def trained_text(card: Card) -> str:
    """Return family, steps and seed, and that a training was too short."""
    parts = [card.family, count(card.steps, "steps"), f"seed {card.seed}"]
    least = min((link.steps for link in card.links), default=card.steps)
    if 0 < least < FEW_STEPS:
        parts.append(f"fewer than {FEW_STEPS} steps: the generator is poor")
    return ", ".join(parts)


def start_text(start: dict[str, Any]) -> str:
    """Return sample and steps of the model that a training started from."""
    starts = start.get("links", [start])
    names = ", ".join(dict.fromkeys(str(one.get("sample")) for one in starts if one))
    steps = sum(int(one.get("steps", 0)) for one in starts)
    return f"a generator of {names}, {count(steps, 'steps')}"


CORRECTOR_TEXT = "corrector: simulated targets become those of data, `pidgan correct`"
"""What tells a reader of a card that it is no generator."""


def card_rows(card: Card) -> dict[str, Any]:
    """Return what a card says as a few texts by name."""
    links = [f"{link.name}: {', '.join(link.targets)}" for link in card.links]
    rows = {
        "sample": f"{card.sample.name}: {card.sample.title}",
        "detector": card.detector,
        **({"kind": CORRECTOR_TEXT} if card.is_corrector else {}),
        **{v.name: _range_text(v, "condition") for v in card.conditions[:MOST_LISTED]},
        **{v.name: _range_text(v, "target") for v in card.targets[:MOST_LISTED]},
        "trained": trained_text(card),
    }
    if excluded := excluded_text(card.sample):
        rows["not trained in"] = excluded
    if card.start:
        rows["started from"] = start_text(card.start)
    if links:
        rows["links"] = "; ".join(links)
    if card.reference:
        rows["reference"] = count(card.reference.get("rows", 0), "rows")
    return rows


def _range_text(variable: CardVariable, kind: str) -> str:
    low, high = variable.range
    unit = "" if variable.unit == "1" else f" {variable.unit}"
    return f"{kind}, trained {low:g} to {high:g}{unit}"


def structure_text(variable: CardVariable) -> str:
    """Return what is known of a variable beside its range, as text."""
    found = ["whole numbers"] if variable.integer else []
    if variable.step not in (None, 1.0):
        found.append(f"in steps of {variable.step:g}")
    found += variable.orders
    if variable.atoms:
        listed = ", ".join(f"{atom:g}" for atom in variable.atoms)
        found.append(f"exactly {listed} in a share of rows")
    return "".join(f", {text}" for text in found)


def describe_variables(
    variables: tuple[Variable, ...], columns: npt.NDArray[Any]
) -> tuple[CardVariable, ...]:
    """Return descriptions of the columns (n, k) of variables, with their ranges."""
    described = []
    ends: list[list[tuple[float, float]]] = [[] for _ in variables]
    for _, block in row_blocks(columns):
        for j, variable in enumerate(variables):
            column = block[:, j]
            none = np.asarray(variable.sentinels, column.dtype)
            valid = column[~np.isin(column, none)]
            if len(valid):
                ends[j].append((float(valid.min()), float(valid.max())))
    for variable, found in zip(variables, ends, strict=True):
        low, high = min(end[0] for end in found), max(end[1] for end in found)
        same = ("name", "integer", "categories", "sentinels", "patterns")
        described.append(
            CardVariable(
                unit=variable.package_unit,
                range=(low, high if low < high else low + 1),
                **{name: getattr(variable, name) for name in same},
            )
        )
    return tuple(described)


class Generator(Protocol):
    """A trained model, a bundle, or any other function of conditions and noise."""

    @property
    def card(self) -> Card:
        """The card of the generator."""

    def generate(self, conditions: Float32Array, noise: Float32Array) -> Float32Array:
        """Return targets (n, n_targets) for conditions and standard normal noise."""


@runtime_checkable
class KeyedGenerator(Protocol):
    """A generator that makes noise from keys by itself, such as a bundle."""

    def generate_keyed(
        self, conditions: Float32Array, keys: UInt64Array
    ) -> Float32Array:
        """Return targets for conditions and keys (n,) of their noise."""


@runtime_checkable
class FarGenerator(KeyedGenerator, Protocol):
    """A generator elsewhere, each call of which is a message.

    Attributes:
        call_rows: Most rows of a call.
    """

    call_rows: int


def sample_targets(
    generator: Generator,
    conditions: npt.ArrayLike,
    *,
    seed: int,
    track: str = "",
    start: int = 0,
) -> Float32Array:
    """Generate targets (n, n_targets) with noise keyed by seed, track and entry number.

    Row i depends on its conditions and on (seed, track, start + i) only, so that any
    split of the rows gives the same numbers. Rows with a condition that is not finite
    never reach the generator; their targets are NaN.
    """
    card = generator.card
    x = np.asarray(conditions, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != len(card.inputs):
        raise ValueError(
            f"conditions have shape {x.shape}, expected (n, {len(card.inputs)}) "
            f"for {', '.join(card.input_names)}"
        )
    if isinstance(generator, KeyedGenerator):
        stop = start + len(x)
        keys = entry_keys(seed=seed, track=track, start=start, stop=stop)
        return generator.generate_keyed(x, keys)
    y = np.full((len(x), len(card.targets)), np.nan, dtype=np.float32)
    for first in range(0, len(x), SAMPLE_ROWS):
        block = x[first : first + SAMPLE_ROWS]
        finite = np.isfinite(block).all(axis=1)
        keys = entry_keys(
            seed=seed, track=track, start=start + first, stop=start + first + len(block)
        )
        noise = keyed_normal(keys[finite], n_noise=card.n_noise)
        y[first : first + len(block)][finite] = generator.generate(block[finite], noise)
    return y


def _read_json(text: str) -> Any:
    """Return the content of JSON; refuse content of a damaged or hostile card only."""
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValueError(
            f"{len(text)} characters, expected at most {MAX_JSON_CHARACTERS}"
        )
    content = json.loads(text)
    level = [content]
    for _ in range(MAX_JSON_DEPTH):
        following: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                following += [*value, *value.values()]
            elif isinstance(value, list):
                # Of numbers, one stands for all: it is as deep as the others.
                following += value[:1] if _are_finite(value) else value
            elif isinstance(value, str) and _CONTROL.search(value):
                raise ValueError(f"{value[:40]!r} has a control character")
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{value} is not finite")
        level = following
    if level:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
    return content


def _are_finite(values: list[Any]) -> bool:
    """Return whether all values are finite numbers; most of a card is such lists."""
    try:
        # A sum with NaN or infinity is not finite; one that overflows only costs time.
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def _plain(value: Any) -> Any:
    """Return a value made of types that strict JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _first_problem(error: ValidationError) -> str:
    """Return the first problem that pydantic found, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "card"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"the card's {place} is wrong: {first['msg']}{more}"
