"""A Variable: one condition or target, read from a branch or derived from several."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import nearest
from pidgan.sample.cut_syntax import RESERVED
from pidgan.sample.cuts import Columns
from pidgan.sample.stored import equals_any

Unit = Literal["MeV", "GeV", "mm", "cm", "ns", "rad", "deg", "1"]

#: Factor from each unit to the unit that the package uses.
UNIT_FACTORS = dict.fromkeys(get_args(Unit), 1.0)
UNIT_FACTORS |= {"GeV": 1000.0, "cm": 10.0, "deg": math.pi / 180}
#: Units that are converted on reading, each with the unit that it becomes.
PACKAGE_UNITS = {"GeV": "MeV", "cm": "mm", "deg": "rad"}
#: Configuration of every model of a definition.
FROZEN = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
#: Columns that stand beside those of conditions and targets.
WEIGHT, STATUS = "weight", "pidgan_status"
#: Column of the variable that sWeights are fitted in, package units.
DISCRIMINANT = "sweight_discriminant"


def charge_of(pdg_ids: FloatArray) -> FloatArray:
    """Return the charges (n,) of PDG ids, NaN for an id that no particle has.

    The charge of a lepton has the other sign than its id: 13 is a mu-.
    """
    from particle import pdgid  # slow to load

    values, places = np.unique(pdg_ids, return_inverse=True)
    found = [pdgid.charge(int(v)) if np.isfinite(v) else None for v in values]
    charges = [np.nan if charge is None else charge for charge in found]
    return np.asarray(charges, dtype=np.float64)[places].reshape(np.shape(pdg_ids))


_quiet = np.errstate(all="ignore")
#: The closed list of derivations: names of the inputs, and a function of their arrays.
#: Impossible input (pt > p, pt = 0) gives NaN or infinity. p and pt do not tell forward
#: from backward; tracks of LHCb are forward.
DERIVATIONS: dict[str, tuple[tuple[str, ...], Callable[..., FloatArray]]] = {
    "eta_from_p_pt": (("p", "pt"), _quiet(lambda p, pt: np.arccosh(p / pt))),
    "eta_from_px_py_pz": (
        ("px", "py", "pz"),
        _quiet(lambda px, py, pz: np.arcsinh(pz / np.hypot(px, py))),
    ),
    "p_from_px_py_pz": (
        ("px", "py", "pz"),
        lambda px, py, pz: np.hypot(np.hypot(px, py), pz),
    ),
    "pt_from_px_py": (("px", "py"), np.hypot),
    "p_from_pt_eta": (("pt", "eta"), _quiet(lambda pt, eta: pt * np.cosh(eta))),
    "charge_from_pdg_id": (("id",), charge_of),
}


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"range is [{low:g}, {high:g}], expected low < high")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _as_names(names: Any) -> Any:
    return (names,) if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]


class Variable(BaseModel):
    """One condition or target, read from a branch or derived from several.

    `name` is canonical (`P`, `RichDLLk`), also in outputs; `branch` is by default the
    same. `derive` is a key of `DERIVATIONS`, with `branches` for its inputs. Stored
    values in `unit` are converted to package units, in which the `range` is given.
    Networks see a variable on the scale `transform`, where "angle" is sine and cosine,
    "fraction" is whole number and fraction, for a position in units of pads, and
    "quantiles" suits long tails, sentinels and frequent values.
    `categories` are the values of a categorical variable, one-hot coded, instead of a
    range. A condition that is `optional` is left out where the files have no such
    branch, or the same value in all rows, such as one charge. `smear` adds a uniform
    fraction of +-1/2 to whole numbers in training.
    Targets are on a grid if they are `integer`, or multiples of a `step` but for a
    common offset; without both, a grid is found in the data. `at_most` names targets
    that a target is never above.
    `sentinels` mean "no measurement" and stay as they are. `patterns` are branches that
    are tried in an analysis ntuple, where `{track}` is the prefix of a track.
    """

    model_config = FROZEN

    name: str = Field(min_length=1)
    branch: str | None = None
    derive: str | None = None
    branches: tuple[str, ...] = ()
    unit: Unit = "1"
    range: Range
    transform: Literal["linear", "log", "angle", "fraction", "quantiles"] = "linear"
    categories: tuple[Finite, ...] = ()
    integer: bool = False
    smear: bool = False
    optional: bool = False
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    at_most: Names = ()
    sentinels: tuple[Finite, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that have to be read."""
        return self.branches if self.derive else (self.branch or self.name,)

    @property
    def package_unit(self) -> str:
        """Unit of the values after reading."""
        return PACKAGE_UNITS.get(self.unit, self.unit)

    @property
    def grid_step(self) -> float | None:
        """Step of the values as it is stated, 1 for whole numbers."""
        return 1.0 if self.integer and self.step is None else self.step

    def evaluate(self, columns: Columns) -> FloatArray:
        """Return the values (n,) in package units, with sentinels unchanged.

        `columns` has the stored values (n,) of each branch in `inputs`.
        """
        arrays = [np.asarray(columns[name], dtype=np.float64) for name in self.inputs]
        if self.derive:
            return DERIVATIONS[self.derive][1](*arrays) * UNIT_FACTORS[self.unit]
        stored, factor = arrays[0], UNIT_FACTORS[self.unit]
        converted = stored * factor
        if factor == 1:  # sentinels are the same, too
            return converted
        return np.where(self.is_sentinel(columns), stored, converted)

    def is_sentinel(self, columns: Columns) -> BoolArray:
        """Return which rows (n,) hold a sentinel, compared in the stored type.

        A float32 -999.9 is the sentinel -999.9 too.
        """
        column = np.asarray(columns[self.inputs[0]])
        return equals_any(column, () if self.derive else self.sentinels)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str, info: ValidationInfo) -> str:
        """Refuse the names of other columns, and words of the language of cuts.

        Version 0.1 took them: what it has written opens.
        """
        if (info.context or {}).get("written"):
            return name
        other = f"choose another name and set branch = {name!r}"
        if name == WEIGHT or name.startswith(f"{WEIGHT}_"):
            raise ValueError(f"{name!r} is reserved for the weights of rows; {other}")
        if name in (STATUS, DISCRIMINANT):
            raise ValueError(f"{name!r} is reserved for the status of rows; {other}")
        if name in RESERVED:
            raise ValueError(f"{name!r} is a word of the language of cuts; {other}")
        if name.startswith("#") or not name.isprintable():
            raise ValueError(f"{name!r} is no name of a column; {other}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _span(cls, content: Any) -> Any:
        """Take the range of a categorical variable from its categories."""
        if not isinstance(content, dict) or not content.get("categories"):
            return content
        values = content["categories"]
        if not isinstance(values, list | tuple) or not all(
            isinstance(value, int | float) for value in values
        ):
            # Reported with its place; without a second report of the range.
            return {"range": (0.0, 1.0), **content}
        if len(set(values)) < max(2, len(values)):
            raise ValueError(
                f"categories are {list(values)}, expected two or more different ones"
            )
        is_small = max(map(abs, values)) < np.finfo(np.float32).max
        if is_small and len(np.unique(np.array(values, "f4"))) < len(values):
            raise ValueError(
                f"categories are {list(values)}, of which two are the same number in "
                "single precision, in which targets are generated"
            )
        return {"range": (min(values), max(values)), **content}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.smear and (self.categories or self.sentinels or not self.integer):
            raise ValueError(
                "smear needs whole numbers (integer = true) without categories and "
                "sentinels"
            )
        if self.integer and self.step is not None and not self.step.is_integer():
            raise ValueError(
                f"integer = true has step {self.step:g}, expected a whole one"
            )
        if self.transform == "log" and self.range[0] <= 0:
            raise ValueError(
                f"transform 'log' needs a range above 0, got {self.range[0]:g}"
            )
        if self.derive is None:
            if self.branches:
                raise ValueError("branches need 'derive'; expected 'branch'")
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
