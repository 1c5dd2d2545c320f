"""The file of a campaign: a grid of bundles, and how each of them is made.

    schema = 1
    cuts = ["RichDLLk > 0", "RichDLLk > 5"]
    files = "calib/{sample}-{year}-{polarity}*.root"

    [grid]
    sample = ["run2_dstar_k", "run2_dstar_pi"]
    year = [2017, 2018]
    polarity = ["down", "up"]

    [train]
    steps = 20000

    [[change]]
    when = {sample = "run2_dstar_pi", year = 2017}
    train = {steps = 40000}

`grid` has the axes: there is a bundle for each combination of their values, and
`{axis}` in a text is replaced. `change` changes what some of them are made with.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
)

from pidgan.arguments import brief, check_path, checked
from pidgan.errors import CampaignError, nearest
from pidgan.files.documents import read_toml
from pidgan.files.recognition import refuse_other
from pidgan.notebook import Facts, count, shown

SUFFIX = ".toml"

STAGES = ("prepare", "train", "validate", "export", "systematics", "collect")
"""Stages of a campaign, in order; the last is one for all bundles."""

BATCH = ("htcondor", "slurm")
"""Batch systems on which workers of Dask can be started."""

FROZEN = ConfigDict(extra="forbid", frozen=True)

AxisValue: TypeAlias = StrictInt | Annotated[StrictStr, Field(min_length=1)]
"""A value of an axis of the grid: a text or a whole number."""


def _listed(value: Any) -> Any:
    """Return a list of one text, where a text is given for a list."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Values = Annotated[
    tuple[AxisValue, ...],
    BeforeValidator(lambda v: v if isinstance(v, list) else [v]),
]


class Prepare(BaseModel):
    """How datasets are prepared, as `build_dataset` takes it."""

    model_config = FROZEN

    shares: tuple[float, float, float] = (0.6, 0.1, 0.3)
    sweights_from: str | None = None
    keep: Texts = ()
    key: Texts = ()


class Train(BaseModel):
    """How generators are trained, as `train` takes it."""

    model_config = FROZEN

    family: str | None = None
    steps: StrictInt | StrictStr | None = None
    budget: str | StrictInt | float | None = None
    settings: dict[str, Any] | str = Field(default_factory=dict)
    processes: StrictInt = Field(default=1, ge=1, le=256)


class Validate(BaseModel):
    """How generators are validated; `misid` is an axis of the grid.

    Bundles that differ along it alone are rejected by one another's cuts.
    """

    model_config = FROZEN

    misid: str | None = None


class Systematics(BaseModel):
    """How efficiency maps are measured, as `run_systematics` takes it."""

    model_config = FROZEN

    binning: str | dict[str, str | StrictInt | tuple[float, ...]] | None = None
    variations: Texts | None = None
    vary: dict[str, float] = Field(default_factory=dict)


class Options(BaseModel):
    """How a bundle is made: what a file says of all, and `change` of some."""

    model_config = FROZEN

    sample: str = ""
    files: Texts = ()
    seed: StrictInt = Field(default=1, ge=0, lt=2**63)
    cuts: Texts | None = None
    where: str | None = None
    prepare: Prepare = Prepare()
    train: Train = Train()
    validation: Validate = Field(default=Validate(), alias="validate")
    systematics: Systematics = Systematics()


class Collect(BaseModel):
    """The collection that is made of all bundles, as `collect` takes it."""

    model_config = FROZEN

    choose: dict[str, str] = Field(default_factory=dict)
    title: str = ""


class Run(BaseModel):
    """Where tasks run. It changes no result.

    Attributes:
        workers: Number of workers; one for each core by default.
        scheduler: Address of a Dask scheduler, whose workers see the same files.
        batch: Batch system on which workers are started.
        options: Arguments of the cluster of dask-jobqueue, such as `memory`.
    """

    model_config = FROZEN

    workers: StrictInt | None = Field(default=None, ge=1, le=10_000)
    scheduler: str | None = None
    batch: Literal["htcondor", "slurm"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class Change(BaseModel):
    """A change of what some bundles are made with, or leaving them out."""

    model_config = ConfigDict(extra="allow", frozen=True)

    when: dict[str, Values] = Field(min_length=1)
    leave_out: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What is changed."""
        return dict(self.model_extra or {})


class Head(BaseModel):
    """What a file says of the campaign itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[1] = Field(alias="schema")
    title: str = ""
    name: str = ""
    threads: StrictInt = Field(default=1, ge=1, le=64)
    stages: tuple[Literal[STAGES], ...] = STAGES  # type: ignore[valid-type]
    grid: dict[str, tuple[AxisValue, ...]]
    change: tuple[Change, ...] = ()
    collect: Collect = Collect()
    run: Run = Run()


@shown
@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Many bundles that one file asks for: a grid, and how each of them is made.

    Attributes:
        head: What the file says of the campaign itself.
        options: What it says of all bundles, as the file has it.
        path: The file. Paths in it begin beside it.

    Example:
        >>> campaign = Campaign.open("campaign.toml")            # doctest: +SKIP
        >>> pidgan.run_campaign(campaign, workers=2)             # doctest: +SKIP
    """

    head: Head
    options: Mapping[str, Any]
    path: Path

    @classmethod
    @checked
    def open(cls, path: "str | Path | Campaign") -> "Campaign":
        """Read the file of a campaign; one that is open is returned.

        Raises:
            CampaignError: The file is missing, or says something impossible.
        """
        if isinstance(path, Campaign):
            return path
        check_path("open", path)
        path = Path(path)
        refuse_other(path, "campaign", error=CampaignError)
        content = read_toml(path, error=CampaignError)
        return cls._of(content, path)

    @classmethod
    def _of(cls, content: Mapping[str, Any], path: Path) -> Self:
        head = parsed(Head, content, str(path), more=Options)
        options = head.model_extra or {}
        parsed(Options, options, str(path), more=Head)
        for number, change in enumerate(head.change, 1):
            where = f"{path}: change {number}"
            parsed(Options, change.options, where, more=Change)
        return cls(head=head, options=options, path=path)

    @property
    def folder(self) -> Path:
        """The folder of the file, where its paths begin."""
        return self.path.absolute().parent

    @property
    def cores(self) -> int:
        """Largest number of cores that a task uses."""
        tables = [self.options, *(change.options for change in self.head.change)]
        numbers = [Options.model_validate(one).train.processes for one in tables]
        return self.head.threads * max(numbers)

    @property
    def place(self) -> Path:
        """The folder that is written if none is asked for: the file's, without end."""
        return self.path.with_suffix("")

    def _facts(self) -> Facts:
        axes = {name: listed(values) for name, values in self.head.grid.items()}
        stages = ", ".join(self.head.stages)
        return Facts(
            f"{self.path.name}: {count(len(self.head.grid), 'axes')}",
            {"title": self.head.title or "none", **axes, "stages": stages},
        )


def listed(values: Any) -> str:
    """Return values of an axis as a text."""
    return ", ".join(map(str, values))


def parsed(
    kind: Any, content: Mapping[str, Any], where: str, *, more: Any = None
) -> Any:
    """Return content as a model; raise a CampaignError that names the first problem.

    `more` is a model whose keys may stand beside those of this one.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        text = _first_problem(error, kind, more)
    raise CampaignError(f"{where}: {text}")


def _first_problem(error: ValidationError, kind: Any, more: Any) -> str:
    found = error.errors(include_url=False)
    # A key that is misspelt is missing too: the spelling is the cause.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    parts = [str(part + 1) if isinstance(part, int) else part for part in first["loc"]]
    # Unions and aliases of pydantic add names of types.
    parts = [part for part in parts if "[" not in part and part not in _KINDS]
    place = ".".join(parts)
    if first["type"] == "extra_forbidden":
        names = _keys(_table_of(kind, first["loc"][:-1]))
        names += _keys(more) if more and len(first["loc"]) == 1 else []
        return f"unknown key {place}{nearest(str(first['loc'][-1]), names)}"
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    return f"{place} is {brief(first['input'])}, expected {message.removeprefix('be ')}"


_KINDS = {"int", "str", "float", "list", "tuple", "constrained-str", "constrained-int"}


def _table_of(kind: Any, location: tuple[Any, ...]) -> Any:
    """Return the model of a table within another."""
    for part in location:
        fields = {f.alias or n: f for n, f in getattr(kind, "model_fields", {}).items()}
        if part not in fields:
            continue
        kind = fields[part].annotation
        if typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
    return kind


def _keys(kind: Any) -> list[str]:
    return [f.alias or n for n, f in getattr(kind, "model_fields", {}).items()]
