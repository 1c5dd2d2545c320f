"""A Sample: the definition of one calibration sample, parsed, validated and frozen.

A definition is a TOML file that says what a calibration sample *is* (species, tree,
branches, ranges, how the background is removed) and never where its files are. Those
that ship are listed by `list_samples`; one's own needs no code. A short one:

    schema = 1
    title = "Kaons of my own selection"
    detector = "LHCb"
    species = "K+"
    source = "my analysis note"
    weight_branch = "sw"
    targets = [{name = "RichDLLk", branch = "K_RichDLLk", range = [-150, 150]}]

    [[conditions]]
    name = "P"
    branch = "K_P"
    unit = "GeV"
    range = [3e3, 200e3]

    [[conditions]]
    name = "ETA"
    derive = "eta_from_p_pt"
    branches = ["K_P", "K_PT"]
    range = [1.8, 5.5]

Showers have cells instead of targets, see `Cells`; a categorical condition, one number
of a closed list, has `categories` instead of a range.

`extends = "run2_dstar_k"` (a shipped name, or a path beside the file) starts from
another definition: every key written here replaces that key as a whole. Ranges are in
package units (MeV, mm, ns, rad), whatever the unit of the branch.
"""

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pidgan.calorimeter.geometry import Geometry, load_geometry
from pidgan.errors import CutError, SampleError, nearest
from pidgan.sample.cuts import Columns, parse_cut

Array = NDArray[np.float64]
Unit = Literal["MeV", "GeV", "mm", "cm", "ns", "rad", "deg", "1"]
Range = tuple[float, float]

#: What a stored value is multiplied with to get package units.
UNIT_FACTORS: dict[str, float] = {
    "MeV": 1.0,
    "GeV": 1000.0,
    "mm": 1.0,
    "cm": 10.0,
    "ns": 1.0,
    "rad": 1.0,
    "deg": math.pi / 180,
    "1": 1.0,
}
#: Units that are converted, and to what.
PACKAGE_UNITS = {"GeV": "MeV", "cm": "mm", "deg": "rad"}
#: A chain of `extends` longer than this is a mistake.
MAX_EXTENDS = 5
#: No cell ever holds more, in package units.
_MOST_ENERGY = 1e12
_BINNINGS = "binnings.toml"
_FROZEN = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
_WEIGHTINGS = ("weight_branch", "discriminant", "unweighted")


def _eta_from_p_pt(p: Array, pt: Array) -> Array:
    # A track's p and pt do not tell forward from backward; LHCb's are forward.
    with np.errstate(all="ignore"):
        return np.asarray(np.arccosh(p / pt))


def _pt_from_px_py(px: Array, py: Array) -> Array:
    return np.hypot(px, py)


def _p_from_px_py_pz(px: Array, py: Array, pz: Array) -> Array:
    return np.hypot(np.hypot(px, py), pz)


def _eta_from_px_py_pz(px: Array, py: Array, pz: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.arcsinh(pz / np.hypot(px, py)))


def _p_from_pt_eta(pt: Array, eta: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(pt * np.cosh(eta))


#: The closed list of derivations: the inputs by name, and the function of their arrays.
#: Impossible input (pt > p, pt = 0) gives NaN or infinity.
DERIVATIONS: dict[str, tuple[tuple[str, ...], Callable[..., Array]]] = {
    "eta_from_p_pt": (("p", "pt"), _eta_from_p_pt),
    "eta_from_px_py_pz": (("px", "py", "pz"), _eta_from_px_py_pz),
    "p_from_px_py_pz": (("px", "py", "pz"), _p_from_px_py_pz),
    "pt_from_px_py": (("px", "py"), _pt_from_px_py),
    "p_from_pt_eta": (("pt", "eta"), _p_from_pt_eta),
}


class Variable(BaseModel):
    """One condition or target, read from a branch or derived from several.

    Attributes:
        name: canonical name (`P`, `RichDLLk`); also that of the output.
        branch: branch in the calibration ntuple; the name itself if neither this nor
            `derive` is given.
        derive: a key of `DERIVATIONS`, with its inputs in `branches`.
        unit: unit of the stored values, converted to package units on reading.
        range: lowest and highest value that is kept, in package units.
        transform: how networks see it: on a linear or a log scale; as sine and cosine
            ("angle"); as whole number and fraction, for a position in units of pads or
            time bins ("fraction").
        categories: the values of a categorical condition, one-hot coded; they stand
            for the range.
        integer: whether it takes whole numbers only.
        smear: learn from whole numbers with a uniform fraction of +-1/2 added.
        sentinels: stored values that stand for "no measurement"; kept as values.
        patterns: branch names tried in an analysis ntuple, `{track}` replaced.
    """

    model_config = _FROZEN

    name: str = Field(min_length=1)
    branch: str | None = None
    derive: str | None = None
    branches: tuple[str, ...] = ()
    unit: Unit = "1"
    range: Range
    transform: Literal["linear", "log", "angle", "fraction"] = "linear"
    categories: tuple[float, ...] = ()
    integer: bool = False
    smear: bool = False
    sentinels: tuple[float, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The branches that have to be read."""
        return self.branches if self.derive else (self.branch or self.name,)

    @property
    def package_unit(self) -> str:
        """The unit after reading."""
        return PACKAGE_UNITS.get(self.unit, self.unit)

    def evaluate(self, columns: Columns) -> Array:
        """Return the values (n,) in package units from the columns of `inputs`.

        Sentinels keep their value; other values are converted.
        """
        arrays = [np.asarray(columns[name], dtype=np.float64) for name in self.inputs]
        if self.derive:
            return DERIVATIONS[self.derive][1](*arrays) * UNIT_FACTORS[self.unit]
        stored = arrays[0]
        converted = stored * UNIT_FACTORS[self.unit]
        return np.where(self.is_sentinel(columns), stored, converted)

    def is_sentinel(self, columns: Columns) -> NDArray[np.bool_]:
        """Return which rows (n,) hold a sentinel, compared in the stored type."""
        stored = np.asarray(columns[self.inputs[0]])
        if self.derive or not self.sentinels:
            return np.zeros(stored.shape, dtype=bool)
        return np.isin(stored, np.asarray(self.sentinels).astype(stored.dtype))

    @model_validator(mode="before")
    @classmethod
    def _span(cls, content: Any) -> Any:
        """Take the range of a categorical variable from its categories."""
        if not isinstance(content, dict) or not content.get("categories"):
            return content
        values = content["categories"]
        if len(set(values)) < max(2, len(values)):
            raise ValueError(
                f"categories are {list(values)}, expected two or more different ones"
            )
        return {"range": (min(values), max(values)), **content}

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range is [{low:g}, {high:g}], expected low < high")
        if self.smear and (self.categories or self.sentinels or not self.integer):
            raise ValueError(
                "smear is for whole numbers (integer = true) without categories and "
                "sentinels"
            )
        if self.transform == "log" and low <= 0:
            raise ValueError(f"transform 'log' needs a range above 0, got {low:g}")
        if self.derive is None:
            if self.branches:
                raise ValueError("branches are for 'derive'; expected 'branch'")
            return self
        if self.derive not in DERIVATIONS:
            known = ", ".join(DERIVATIONS)
            raise ValueError(
                f"unknown derivation {self.derive!r}, expected one of {known}"
                f"{nearest(self.derive, DERIVATIONS)}"
            )
        wanted = DERIVATIONS[self.derive][0]
        if self.branch is not None or len(self.branches) != len(wanted):
            raise ValueError(
                f"derive {self.derive!r} needs branches = [{', '.join(wanted)}] "
                f"and no 'branch'"
            )
        return self


class Discriminant(BaseModel):
    """The variable that sWeights are fitted in, with the shapes of the two components.

    Attributes:
        branch: branch in the calibration ntuple, in `unit`.
        range: fitted range in package units; rows outside are dropped.
        signal: "gauss"; "double_gauss", two Gaussians with one mean; "crystal_ball",
            a Gaussian core with a power-law tail on each side.
        background: "exponential", or "polynomial" of first order.
    """

    model_config = _FROZEN

    branch: str = Field(min_length=1)
    unit: Unit = "MeV"
    range: Range
    signal: Literal["gauss", "double_gauss", "crystal_ball"] = "double_gauss"
    background: Literal["exponential", "polynomial"] = "exponential"

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range is [{low:g}, {high:g}], expected low < high")
        return self


class Symmetry(BaseModel):
    """Mirrors that leave a calorimeter as it is, to learn from mirror images too.

    Attributes:
        mirrors: "x" and "y", that turn the sign of a coordinate; "swap", that exchanges
            the two.
        x, y, phi: conditions that are the position and azimuth of the particle.
    """

    model_config = _FROZEN

    mirrors: Annotated[tuple[Literal["x", "y", "swap"], ...], Field(min_length=1)]
    x: str | None = None
    y: str | None = None
    phi: str | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Condition of each of "x", "y" and "phi" that there is."""
        given = {"x": self.x, "y": self.y, "phi": self.phi}
        return {key: name for key, name in given.items() if name is not None}


class Cells(BaseModel):
    """The energies of a calorimeter's cells, the targets of a sample of showers.

        [cells]
        geometry = "block.toml"
        arrays = {cells = "cells_GeV", profile = "profile_GeV"}
        unit = "GeV"
        incident = "energy"

    Attributes:
        geometry: a file (beside the definition) or table, see
            `pidgan.calorimeter.geometry.load_geometry`.
        arrays: for each view of the geometry the branch that holds its cells, an array
            of fixed size an entry, flat index last.
        unit: of what is stored; "1" for counts of an ADC.
        incident: condition that energies are measured in, if there is one.
        threshold: cells below this are zero, in package units.
        scheme: what a generator learns, see `pidgan.calorimeter.coordinates`: "layers",
            the total, the shares of the layers and those of the cells in each; or
            "cells", every cell by itself.
        scale: "log" or "logit" of these.
        symmetry: mirrors of the calorimeter, see `Symmetry`.
    """

    model_config = _FROZEN

    geometry: dict[str, Any]
    arrays: dict[str, str]
    unit: Unit = "MeV"
    incident: str | None = None
    threshold: float = Field(default=0.0, ge=0)
    scheme: Literal["layers", "cells"] = "layers"
    scale: Literal["log", "logit"] = "log"
    symmetry: Symmetry | None = None

    @cached_property
    def layout(self) -> Geometry:
        """The geometry."""
        return load_geometry(self.geometry)

    def variables(self) -> tuple[Variable, ...]:
        """Return a variable for each cell, named by its view and its index in it."""
        unit: Any = PACKAGE_UNITS.get(self.unit, self.unit)
        return tuple(
            Variable(name=f"{view.name}_{i}", unit=unit, range=(0.0, _MOST_ENERGY))
            for view in self.layout.views
            for i in range(view.n_cells)
        )

    @model_validator(mode="before")
    @classmethod
    def _read_geometry(cls, content: Any) -> Any:
        """Put the table of the geometry in place of a file's name."""
        if not isinstance(content, dict) or "geometry" not in content:
            return content
        try:
            geometry = load_geometry(content["geometry"])
        except SampleError as error:
            raise ValueError(str(error)) from None
        return content | {"geometry": geometry.to_dict()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        views = [view.name for view in self.layout.views]
        if sorted(self.arrays) != sorted(views):
            raise ValueError(
                f"arrays are given for {', '.join(self.arrays) or 'no view'}, expected "
                f"one for each view of the geometry: {', '.join(views)}"
            )
        return self


class Sample(BaseModel):
    """A calibration sample: what it is, and how to read it.

    Exactly one of `weight_branch`, `discriminant` and `unweighted` says how background
    is treated. `selection` is a cut on branches, applied first; `fiducial` one on
    conditions, which also holds where a generator is applied. `cuts` are the standard
    PID cuts of reports; `binning` holds bin edges of (some) conditions, `map_binning`
    those of efficiency maps, where they differ. `exclude` holds, by condition,
    intervals that nothing is trained in, so that a generator can be judged inside.
    """

    model_config = _FROZEN

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    detector: str = Field(min_length=1)
    species: str
    source: str = Field(min_length=1)
    trees: tuple[str, ...] = ()
    weight_branch: str | None = None
    discriminant: Discriminant | None = None
    unweighted: bool = False
    conditions: Annotated[tuple[Variable, ...], Field(min_length=1)]
    variables: tuple[Variable, ...] = Field(default=(), alias="targets")
    cells: Cells | None = None
    exclude: dict[str, tuple[Range, ...]] = Field(default_factory=dict)
    selection: str | None = None
    fiducial: str | None = None
    binning: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    map_binning: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    cuts: tuple[str, ...] = ()
    data_taking: dict[str, str] = Field(default_factory=dict)

    @cached_property
    def targets(self) -> tuple[Variable, ...]:
        """What is generated: the targets of the definition, or every cell."""
        return self.variables if self.cells is None else self.cells.variables()

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions, in order."""
        return tuple(variable.name for variable in self.conditions)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(variable.name for variable in self.targets)

    @property
    def branches(self) -> tuple[str, ...]:
        """Every branch that has to be read, without repetition."""
        names = [name for v in (*self.conditions, *self.variables) for name in v.inputs]
        if self.cells:
            names += [self.cells.arrays[view.name] for view in self.cells.layout.views]
        if self.weight_branch:
            names.append(self.weight_branch)
        if self.discriminant:
            names.append(self.discriminant.branch)
        if self.selection:
            names += parse_cut(self.selection).names
        return tuple(dict.fromkeys(names))

    @property
    def aliases(self) -> dict[str, str]:
        """Names by branch, so that cuts may use PIDCalib's names and tunes too.

        A probe's branch counts without "probe_" as well: `MC15TuneV1_ProbNNk` is the
        `ProbNNk` of a sample with that tuning, and of no other.
        """
        names = {*self.condition_names, *self.target_names}
        found = {}
        for variable in (*self.conditions, *self.variables):
            if variable.branch:
                for text in (variable.branch, variable.branch.removeprefix("probe_")):
                    if text not in names:
                        found[text] = variable.name
        return found

    @property
    def sentinels(self) -> dict[str, tuple[float, ...]]:
        """Sentinel values by target name, as cuts need them."""
        return {v.name: v.sentinels for v in self.variables if v.sentinels}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.variables and self.cells:
            raise ValueError("expected either targets or cells, got both")
        if not self.variables and not self.cells:
            raise ValueError("key 'targets' is missing, or 'cells'")
        names = [*self.condition_names, *self.target_names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name used more than once: {', '.join(twice)}")
        given = [key for key in _WEIGHTINGS if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(_WEIGHTINGS)}, "
                f"got {' and '.join(given) or 'none'}"
            )
        _check_binning(self.binning, self.condition_names)
        _check_binning(self.map_binning, self.condition_names)
        for what, mentioned in (
            ("exclude", list(self.exclude)),
            ("cells.incident", [self.cells.incident] if self.cells else []),
            ("cells.symmetry", _symmetric(self.cells)),
        ):
            for name in mentioned:
                if name is not None and name not in self.condition_names:
                    raise ValueError(
                        f"{what} names {name!r}, which is not a condition"
                        f"{nearest(name, self.condition_names)}"
                    )
        try:
            for text in self.cuts:
                parse_cut(text, names=self.target_names)
            if self.fiducial:
                parse_cut(self.fiducial, names=self.condition_names)
            if self.selection:
                parse_cut(self.selection)
        except CutError as error:
            raise ValueError(str(error)) from None
        return self


def load_sample(name_or_path: str | Path | Sample) -> Sample:
    """Load the definition of a calibration sample.

    Args:
        name_or_path: a name that `list_samples` lists, or the path of a TOML file. A
            Sample is returned as it is.

    Raises:
        SampleError: no such sample, or a definition that is wrong; one line says where.

    Example:
        >>> load_sample("run2_dstar_k").species
        'K+'
    """
    if isinstance(name_or_path, Sample):
        return name_or_path
    path = _find(str(name_or_path), Path.cwd())
    return _load(path)


def list_samples() -> dict[str, Path]:
    """Return name and file of every calibration sample that ships with pidgan."""
    paths = sorted(calibration_directory().glob("*.toml"))
    return {path.stem: path for path in paths if path.name != _BINNINGS}


def load_binning(name: str) -> dict[str, tuple[float, ...]]:
    """Return a binning that ships: edges by condition, in package units.

    "hadrons", "electrons" and "muons" are the defaults of PIDCalib2 in P, ETA and
    nTracks; "run3_hadrons" and "run3_muons" have nLongTracks; "hadrons_map" and
    "run3_hadrons_map" are what efficiency maps use.

    Raises:
        SampleError: no binning has that name.

    Example:
        >>> load_binning("muons")["nTracks"]
        (0.0, 50.0, 200.0, 300.0, 500.0)
    """
    known = _parse(calibration_directory() / _BINNINGS)
    if name not in known:
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise SampleError(f"no binning {name!r} in {_BINNINGS}{hint}")
    return {key: tuple(map(float, edges)) for key, edges in known[name].items()}


def calibration_directory() -> Path:
    """Return the folder of the definitions: in a wheel, or beside the source tree."""
    package = Path(__file__).resolve().parent.parent
    places = (package / "calibration", package.parent / "calibration")
    for place in places:
        if (place / _BINNINGS).is_file():
            return place
    raise SampleError(
        f"no folder 'calibration' with {_BINNINGS}; looked in "
        f"{' and '.join(map(str, places))}: the installation is incomplete"
    )


def _find(name: str, folder: Path) -> Path:
    shipped = list_samples()
    if name in shipped:
        return shipped[name]
    path = folder / name
    if path.is_file():
        return path
    kind = "file" if name.endswith(".toml") else "calibration sample"
    known = {**dict.fromkeys(shipped), **dict.fromkeys(map(str, folder.glob("*.toml")))}
    hint = nearest(name, known) or f"; known: {', '.join(shipped)}"
    raise SampleError(f"no {kind} {name!r}{hint}")


def _load(path: Path) -> Sample:
    content = _resolved(path, depth=0)
    content.setdefault("name", path.stem)
    for key in ("binning", "map_binning"):
        if isinstance(content.get(key), str):
            content[key] = _named_binning(content[key], path)
    cells = content.get("cells")
    if isinstance(cells, dict) and isinstance(cells.get("geometry"), str | dict):
        cells["geometry"] = _geometry_table(cells["geometry"], path)
    try:
        sample = Sample.model_validate(content)
    except ValidationError as error:
        problems = [_one_line(detail, content) for detail in error.errors()]
        raise SampleError(f"{path}: {'; '.join(problems[:5])}") from None
    if path.parent != calibration_directory():  # those that ship are tested
        _check_species(sample.species, path)
    return sample


def _resolved(path: Path, *, depth: int) -> dict[str, Any]:
    """Read a file and put it over the one it extends."""
    content = _parse(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise SampleError(f"{path}: extends is {base!r}, expected a name or a path")
    if depth == MAX_EXTENDS:
        raise SampleError(f"{path}: extends goes in a circle or is too deep ({base!r})")
    try:
        inherited = _resolved(_find(base, path.parent), depth=depth + 1)
    except SampleError as error:
        raise SampleError(f"{path}: extends {base!r}: {error}") from None
    inherited.pop("name", None)
    if any(key in content for key in _WEIGHTINGS):
        for key in _WEIGHTINGS:
            inherited.pop(key, None)
    return inherited | content


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SampleError(f"{path} is not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise SampleError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise SampleError(f"{path} cannot be read: {error.strerror}") from None


def _named_binning(name: str, path: Path) -> dict[str, tuple[float, ...]]:
    try:
        return load_binning(name)
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from None


def _geometry_table(geometry: str | dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        return load_geometry(geometry, folder=path.parent).to_dict()
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from None


def _one_line(detail: ErrorDetails, content: Mapping[str, Any]) -> str:
    """Rewrite pydantic's account of one problem as where, got, expected."""
    where = _location(detail["loc"], content)
    message = detail["msg"].removeprefix("Value error, ")
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return f"unknown key {where!r}{nearest(key, _fields(detail['loc']))}"
    if detail["type"] == "missing":
        return f"key {where!r} is missing"
    if detail["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {detail['input']!r}: {message[:1].lower()}{message[1:]}"


def _fields(location: tuple[int | str, ...]) -> Iterable[str]:
    nested: dict[str, type[BaseModel]] = {
        "conditions": Variable,
        "targets": Variable,
        "discriminant": Discriminant,
        "cells": Cells,
    }
    model = nested.get(str(location[0]), Sample) if len(location) > 1 else Sample
    fields = model.model_fields.items()
    return ["extends", *(field.alias or name for name, field in fields)]


def _location(location: tuple[int | str, ...], content: Any) -> str:
    """Write conditions.1.range as conditions['ETA'].range."""
    text = ""
    for part in location:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(part, str):
            text += f".{part}" if text else part
        elif isinstance(content, dict) and "name" in content:
            text += f"[{content['name']!r}]"
        else:
            text += f"[{part}]"
    return text


def _check_binning(
    binning: Mapping[str, Sequence[float]], condition_names: Sequence[str]
) -> None:
    for name, edges in binning.items():
        if name not in condition_names:
            raise ValueError(
                f"binning in {name!r}, which is not a condition"
                f"{nearest(name, condition_names)}"
            )
        if len(edges) < 2 or not bool(np.all(np.diff(edges) > 0)):
            raise ValueError(f"binning: edges of {name!r} do not rise")


def _symmetric(cells: Cells | None) -> list[str]:
    """Return the conditions that mirrors change."""
    symmetry = cells.symmetry if cells else None
    return list(symmetry.columns.values()) if symmetry else []


def _check_species(species: str, path: Path) -> None:
    from particle import Particle, ParticleNotFound  # slow to load

    try:
        Particle.from_name(species)
    except ParticleNotFound:
        names = [particle.name for particle in Particle.all()]
        raise SampleError(
            f"{path}: species {species!r} is no particle's PDG name"
            f"{nearest(species, names)}"
        ) from None
