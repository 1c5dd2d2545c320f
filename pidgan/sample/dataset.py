"""A Dataset: conditions, targets, weights and split of a calibration sample.

`build_dataset` makes one from ntuples, in this order: the selection on branches;
derivation and conversion to package units; rows with a NaN or infinity dropped; the
check that units fit the declared ranges; the fiducial cut; conditions, targets and
discriminant outside their range dropped, where a target's sentinels stay; sWeights
fitted to what is left, or read from a branch. `info` counts what was dropped and why.
A condition with one value only says nothing: it is left out of the sample, with a
warning.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ValidationError

from pidgan.calorimeter.geometry import View
from pidgan.errors import DatasetError, PidganWarning, SampleError
from pidgan.files.tables import Source, find_sources, iterate_columns, iterate_rows
from pidgan.files.trees import is_npz
from pidgan.files.writing import writing_folder
from pidgan.sample.cuts import parse_cut
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_sample
from pidgan.sample.sweights import alternative_sweights, compute_sweights
from pidgan.sample.variables import UNIT_FACTORS, Variable

ALTERNATIVE_WEIGHT = "weight_"
"""How columns with the weights of other mass fits begin, in tables of a dataset."""

PartName = Literal["train", "validation", "test", "excluded"]

#: Parts in the order of their code in `Dataset.split`.
PARTS: tuple[PartName, ...] = ("train", "validation", "test", "excluded")
#: Shares of the parts: the test part is large, as every figure and the systematic
#: uncertainty of a PID cut come from it.
SHARES = (0.6, 0.1, 0.3)
#: Version of the folder's layout.
FORMAT = 2
#: Fraction of rows that, dropped for one reason, is worth a warning.
MANY_DROPPED = 0.05
_ARRAYS = ("conditions", "targets", "weights", "alternatives", "split")
_DESCRIPTION = "dataset.json"
#: Views are two accounts of one energy if they agree to this.
VIEWS_AGREE = 1e-3
#: Nothing shows more than its energy, but for fluctuations and calibrations.
MOST_RESPONSE = 3.0
# As for sentinels: "#" cannot begin the name of a variable.
_CELLS = "#cells"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one part of a dataset.

    Attributes:
        conditions: (n, c), package units.
        targets: (n, t), package units.
        weights: (n,), of either sign.
        alternatives: (n, a), the weights of other mass fits.
    """

    conditions: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    alternatives: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a generator is trained on and judged by.

    Attributes:
        sample: the definition it was built with.
        conditions: (n, c) float32, in the order of `sample.conditions`, package units.
        targets: (n, t) float32, in the order of `sample.targets`; sentinels included.
        weights: (n,) float64, of either sign, with a positive sum.
        alternatives: (n, a) float64, the sWeights of other mass fits.
        split: (n,) uint8; 0 train, 1 validation, 2 test, 3 excluded: rows inside the
            intervals of `sample.exclude`.
        info: hash, names of the alternatives, seed, files, rows read, kept and dropped
            with the reason, sums of weights, and the summary of the mass fit if there
            was one.
    """

    sample: Sample
    conditions: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    alternatives: npt.NDArray[np.float64]
    split: npt.NDArray[np.uint8]
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.weights)

    def part(self, name: PartName) -> Part:
        """Return the rows of one part: "train", "validation", "test", "excluded"."""
        if name not in PARTS:
            raise ValueError(f"part is {name!r}, expected one of {', '.join(PARTS)}")
        rows = np.flatnonzero(self.split == PARTS.index(name))
        return Part(
            conditions=np.asarray(self.conditions[rows]),
            targets=np.asarray(self.targets[rows]),
            weights=np.asarray(self.weights[rows]),
            alternatives=np.asarray(self.alternatives[rows]),
        )

    def frame(self, name: PartName) -> pd.DataFrame:
        """Return one part as a table: conditions, targets by name, and "weight".

        Weights of another mass fit are "weight_<name>".
        """
        part = self.part(name)
        names = self.sample.condition_names + self.sample.target_names
        columns = [*part.conditions.T, *part.targets.T]
        frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
        frame["weight"] = part.weights
        for other, weights in zip(
            self.info.get("alternatives", ()), part.alternatives.T, strict=True
        ):
            frame[f"{ALTERNATIVE_WEIGHT}{other}"] = weights
        return frame

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the dataset to a folder, whole or not at all.

        Args:
            path: the folder, which must not exist.
            overwrite: replace it if it holds a dataset already.
        """
        with writing_folder(path, mark=_DESCRIPTION, overwrite=overwrite) as new:
            for name in _ARRAYS:
                np.save(new / f"{name}.npy", getattr(self, name), allow_pickle=False)
            description = {
                "format": FORMAT,
                "sample": self.sample.model_dump(mode="json", by_alias=True),
                "info": self.info,
            }
            (new / _DESCRIPTION).write_text(
                json.dumps(description, indent=1), encoding="utf-8"
            )
        return Path(path)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> "Dataset":
        """Open a dataset; its arrays are mapped from disk, not read into memory.

        Args:
            path: a folder that `save` wrote.
            verify: compare the content with its hash, about a second per gigabyte.

        Raises:
            DatasetError: no dataset there, or a damaged one.
        """
        folder = Path(path)
        sample, info = _read_description(folder)
        arrays = {name: _map_array(folder / f"{name}.npy") for name in _ARRAYS}
        dataset = cls(sample=sample, info=info, **arrays)
        _check_shapes(dataset, folder)
        if verify and content_hash(dataset) != info.get("hash"):
            raise DatasetError(
                f"dataset {folder} is damaged: its content does not have the recorded "
                f"hash {info.get('hash')}; prepare it again"
            )
        return dataset


def build_dataset(
    sample: Sample | str | Path,
    files: Sequence[str | Path] | str | Path,
    *,
    seed: int = 1,
    shares: tuple[float, float, float] = SHARES,
) -> Dataset:
    """Build the dataset of a calibration sample from its files.

    Args:
        sample: a definition, its name or its path.
        files: FILE, FILE:TREE, globs, addresses or Parquet; several trees (the two
            charges of a probe) are put together, and fitted together.
        seed: of the split.
        shares: of train, validation and test, of sum 1.

    Returns:
        The dataset; the same input and seed give the same `info["hash"]`.

    Raises:
        SampleError: data that do not fit the definition, such as a wrong unit.
        DatasetError: no rows left, or no positive sum of weights.
        FitError: the mass fit failed.
        NtupleError: a file, tree or branch is missing.

    Example:
        >>> dataset = build_dataset("run2_dstar_k", ["calib/*.root"])  # doctest: +SKIP
        >>> dataset.frame("test")["RichDLLk"].mean()  # doctest: +SKIP
    """
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares are {shares}, expected positive ones of sum 1")
    sample = load_sample(sample)
    sources = find_sources(files, trees=sample.trees)
    table = _Table(sample)
    for source in sources:
        table.read(source)
    values = table.values()
    where = _where(sources)
    values = _drop(values, ~_is_finite(values), "NaN or infinite", table.dropped)
    if table.dropped.get("NaN or infinite"):
        warnings.warn(
            f"{where}: {table.dropped['NaN or infinite']} of {table.rows} rows dropped "
            f"for a NaN or infinite value",
            PidganWarning,
            stacklevel=2,
        )
    _check_rows(values, where, table.dropped)
    for variable in (*sample.conditions, *sample.variables):
        _check_unit(variable, values, where)
    _check_response(sample, values, where)
    values = _keep_inside(sample, values, table.dropped)
    _check_rows(values, where, table.dropped)
    _warn_dropped(table, where)
    sample = _without_constants(sample, values, where)
    weights, others, fit = _weigh(sample, values, where)
    info = table.info() | {"alternatives": list(others)} | fit
    return _assemble(
        sample, values, weights, others, seed=seed, shares=shares, info=info
    )


def content_hash(dataset: Dataset) -> str:
    """Return the sha256 of the definition and of all arrays, in hexadecimal."""
    digest = hashlib.sha256(_definition(dataset.sample))
    for name in _ARRAYS:
        array = np.ascontiguousarray(getattr(dataset, name))
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data.cast("B") if array.size else b"")
    return digest.hexdigest()


def _definition(sample: Sample) -> bytes:
    # Without defaults, so that a field added later leaves the hashes as they are.
    return sample.model_dump_json(by_alias=True, exclude_defaults=True).encode()


class _Table:
    """Gathers what is read, source after source."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.rows = 0
        self.dropped: dict[str, int] = {}
        self.files: list[dict[str, Any]] = []
        self._chunks: list[dict[str, npt.NDArray[Any]]] = []

    def read(self, source: Source) -> None:
        """Read one tree in chunks, apply the selection, derive and convert."""
        rows = 0
        for frame, cells in self._iterate(source):
            rows += len(frame)
            self._chunks.append(self._evaluate(frame, cells))
        self.rows += rows
        self.files.append({"source": str(source), "rows": rows})

    def values(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of all sources in one piece each."""
        if not self._chunks:
            return {}
        columns = self._chunks[0]
        return {
            name: np.concatenate([chunk[name] for chunk in self._chunks])
            for name in columns
        }

    def info(self) -> dict[str, Any]:
        return {"files": self.files, "rows_read": self.rows, "dropped": self.dropped}

    def _iterate(
        self, source: Source
    ) -> Iterator[tuple[pd.DataFrame, npt.NDArray[Any] | None]]:
        """Yield chunks: columns, and the cells (n, n_cells) if there are any."""
        cells, branches = self.sample.cells, self.sample.branches
        if cells is None and not is_npz(source.path):
            for _, frame in iterate_columns(source, branches):
                yield frame, None
            return
        for arrays in iterate_rows(source, branches):
            views = [] if cells is None else cells.layout.views
            stored = []
            for view in views:
                array = arrays[cells.arrays[view.name]] if cells else None
                stored.append(_of_view(view, array, source))
            flat = {name: a for name, a in arrays.items() if a.ndim == 1}
            yield (
                pd.DataFrame(flat),
                np.concatenate(stored, axis=1) if stored else None,
            )

    def _evaluate(
        self, frame: pd.DataFrame, cells: npt.NDArray[Any] | None
    ) -> dict[str, npt.NDArray[Any]]:
        sample = self.sample
        if sample.selection:
            # The cut fails rows with a NaN, which thus count as not selected.
            passed = parse_cut(sample.selection, names=frame.columns).passes(frame)
            _count(self.dropped, "selection", int((~passed).sum()))
            frame = frame.loc[passed]
            cells = None if cells is None else cells[passed]
        columns: dict[str, npt.NDArray[Any]] = {}
        if sample.cells and cells is not None:
            energies = cells.astype(np.float32) * UNIT_FACTORS[sample.cells.unit]
            energies[energies < sample.cells.threshold] = 0
            columns[_CELLS] = energies.astype(np.float32)
        for variable in (*sample.conditions, *sample.variables):
            columns[variable.name] = variable.evaluate(frame)
            columns[_sentinel_key(variable)] = variable.is_sentinel(frame)
        if sample.weight_branch:
            columns["#weight"] = frame[sample.weight_branch].to_numpy(np.float64)
        if sample.discriminant:
            columns["#mass"] = _discriminant(sample).evaluate(frame)
        return columns


def _sentinel_key(variable: Variable) -> str:
    # "#" cannot begin a variable that a cut can name, so keys never collide.
    return f"#sentinel {variable.name}"


def _discriminant(sample: Sample) -> Variable:
    """Describe the discriminant as a variable, to read and check it alike."""
    mass = sample.discriminant
    if mass is None:
        raise TypeError("the sample has no discriminant")
    return Variable(
        name=mass.branch, branch=mass.branch, unit=mass.unit, range=mass.range
    )


def _where(sources: Sequence[Source]) -> str:
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return f"{sources[0]}{more}"


def _is_finite(values: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    finite = [
        np.isfinite(c).all(axis=tuple(range(1, c.ndim)))
        for c in values.values()
        if c.dtype != np.bool_
    ]
    return np.asarray(np.logical_and.reduce(finite))


def _count(dropped: dict[str, int], reason: str, rows: int) -> None:
    if rows:
        dropped[reason] = dropped.get(reason, 0) + rows


def _drop(
    values: dict[str, npt.NDArray[Any]],
    bad: npt.NDArray[np.bool_],
    reason: str,
    dropped: dict[str, int],
) -> dict[str, npt.NDArray[Any]]:
    if not bad.any():
        return values
    _count(dropped, reason, int(bad.sum()))
    return {name: column[~bad] for name, column in values.items()}


def _check_rows(
    values: dict[str, npt.NDArray[Any]], where: str, dropped: dict[str, int]
) -> None:
    if values and len(next(iter(values.values()))):
        return
    reasons = ", ".join(f"{reason}: {rows}" for reason, rows in dropped.items())
    raise DatasetError(f"{where}: no rows left; dropped for {reasons or 'no reason'}")


def _check_unit(
    variable: Variable, values: dict[str, npt.NDArray[Any]], where: str
) -> None:
    """Refuse a variable whose median lies outside its range: a unit or a branch."""
    column = values[variable.name][~values[_sentinel_key(variable)]]
    if not len(column):
        return
    median, (low, high) = float(np.median(column)), variable.range
    if low <= median <= high:
        return
    origin = f"derived from {', '.join(variable.inputs)}" if variable.derive else ""
    account = (
        f"{where}: {variable.name} ({origin or f'branch {variable.inputs[0]!r}'}) has "
        f"median {median:.6g} {variable.package_unit} read with unit = "
        f"{variable.unit!r}, outside the declared range [{low:g}, {high:g}] "
        f"{variable.package_unit}"
    )
    if variable.unit == "MeV" and low <= 1000 * median <= high:
        raise SampleError(
            f'{account}; looks like GeV where MeV is declared, set unit = "GeV"'
        )
    if variable.unit == "GeV" and low <= median / 1000 <= high:
        raise SampleError(
            f'{account}; looks like MeV where GeV is declared, set unit = "MeV"; or '
            "the range is meant in GeV: ranges are in MeV"
        )
    raise SampleError(f"{account}; check branch, unit and range")


def _keep_inside(
    sample: Sample, values: dict[str, npt.NDArray[Any]], dropped: dict[str, int]
) -> dict[str, npt.NDArray[Any]]:
    """Drop rows outside the fiducial cut and the ranges, in a fixed order."""
    if sample.fiducial:
        passed = parse_cut(sample.fiducial, names=sample.condition_names).passes(values)
        values = _drop(values, ~passed, "fiducial", dropped)
    for variable in (*sample.conditions, *sample.variables):
        column, (low, high) = values[variable.name], variable.range
        if variable.categories:
            known = np.isin(column, variable.categories)
            values = _drop(values, ~known, f"{variable.name} unknown", dropped)
            continue
        outside = ~((column >= low) & (column <= high))
        outside &= ~values[_sentinel_key(variable)]
        values = _drop(values, outside, f"{variable.name} out of range", dropped)
    if sample.cells:
        empty = np.asarray(values[_CELLS].max(axis=1) <= 0)
        least = sample.cells.threshold
        reason = f"no cell above the threshold of {least:g}" if least else "no energy"
        values = _drop(values, empty, reason, dropped)
    if sample.discriminant:
        low, high = sample.discriminant.range
        outside = ~((values["#mass"] >= low) & (values["#mass"] <= high))
        reason = f"{sample.discriminant.branch} out of range"
        values = _drop(values, outside, reason, dropped)
    return values


def _of_view(
    view: View, array: npt.NDArray[Any] | None, source: Source
) -> npt.NDArray[Any]:
    """Return the cells of a view; raise if there are more or fewer."""
    found = np.zeros((0, 0)) if array is None else array
    found = found[:, None] if found.ndim == 1 else found
    if found.shape[1] != view.n_cells:
        raise SampleError(
            f"{source}: the array of view {view.name!r} has {found.shape[1]} cells, "
            f"the geometry {view.n_cells}"
        )
    return found


def _check_response(
    sample: Sample, values: dict[str, npt.NDArray[Any]], where: str
) -> None:
    """Refuse views that differ in their total, and a wrong unit of energy."""
    cells = sample.cells
    if cells is None:
        return
    totals = {
        name: values[_CELLS][:, part].sum(axis=1, dtype=np.float64)
        for name, part in cells.layout.view_slices.items()
    }
    first, *others = totals.items()
    for name, total in others if cells.scheme == "layers" else ():
        bad = np.abs(total - first[1]) > VIEWS_AGREE * np.abs(first[1])
        if bad.any() and cells.threshold == 0:
            raise SampleError(
                f"{where}: views {first[0]!r} and {name!r} hold different energies in "
                f"{bad.sum()} of {len(bad)} rows, expected two accounts of one energy; "
                f'set scheme = "cells", or give each a definition of its own'
            )
    if cells.incident:
        response = float(np.median(first[1] / values[cells.incident]))
        if response > MOST_RESPONSE:
            raise SampleError(
                f"{where}: the cells hold {response:.3g} times the incident energy "
                f"{cells.incident!r} (median); check cells.unit = {cells.unit!r}"
            )


def _without_constants(
    sample: Sample, values: dict[str, npt.NDArray[Any]], where: str
) -> Sample:
    """Leave out conditions that take one value only."""
    constant = {
        name: float(values[name][0])
        for name in sample.condition_names
        if (values[name] == values[name][0]).all()
    }
    if not constant:
        return sample
    listed = ", ".join(f"{name} = {value:g}" for name, value in constant.items())
    kept = tuple(v for v in sample.conditions if v.name not in constant)
    used = parse_cut(sample.fiducial).names if sample.fiducial else ()
    if not kept or set(used) & set(constant):
        raise SampleError(
            f"{where}: constant conditions, {listed}; expected one that varies, and "
            "none of them in the fiducial cut"
        )
    warnings.warn(
        f"{where}: constant conditions are left out: {listed}",
        PidganWarning,
        stacklevel=3,
    )
    update: dict[str, Any] = {"conditions": kept}
    for key in ("binning", "map_binning", "exclude"):
        update[key] = {
            k: v for k, v in getattr(sample, key).items() if k not in constant
        }
    cells = sample.cells
    if cells and cells.incident in constant:
        update["cells"] = cells.model_copy(update={"incident": None})
    if (
        cells
        and cells.symmetry
        and set(cells.symmetry.columns.values()) & set(constant)
    ):
        # The mirror image of the one position is another, that no row has.
        update["cells"] = update.get("cells", cells).model_copy(
            update={"symmetry": None}
        )
    return sample.model_copy(update=update)


def _warn_dropped(table: _Table, where: str) -> None:
    for reason, rows in table.dropped.items():
        cut = reason in ("selection", "fiducial")
        if cut or reason.startswith("NaN") or rows <= MANY_DROPPED * table.rows:
            continue
        warnings.warn(
            f"{where}: {rows} of {table.rows} rows dropped: {reason}",
            PidganWarning,
            stacklevel=3,
        )


def _weigh(
    sample: Sample, values: dict[str, npt.NDArray[Any]], where: str
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the weights, those of other mass fits, and the summary of the fit."""
    fit: dict[str, Any] = {}
    others: dict[str, npt.NDArray[Any]] = {}
    if sample.weight_branch:
        weights = values["#weight"]
    elif sample.discriminant:
        result = compute_sweights(values["#mass"], sample.discriminant, where=where)
        weights, fit = result.weights, {"fit": result.summary}
        others = alternative_sweights(values["#mass"], sample.discriminant, where=where)
    else:
        weights = np.ones(len(values[sample.condition_names[0]]))
    total = float(weights.sum())
    if not total > 0:
        name = sample.weight_branch or "sWeights"
        raise DatasetError(
            f"{where}: the sum of {name!r} over {len(weights)} rows is {total:g}, "
            f"expected a positive number"
        )
    return weights, others, fit


def _assemble(
    sample: Sample,
    values: dict[str, npt.NDArray[Any]],
    weights: npt.NDArray[np.float64],
    others: dict[str, npt.NDArray[Any]],
    *,
    seed: int,
    shares: tuple[float, float, float],
    info: dict[str, Any],
) -> Dataset:
    n = len(weights)
    bounds = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    split = np.empty(n, dtype=np.uint8)
    order = np.random.default_rng(seed).permutation(n)
    split[order] = np.searchsorted(bounds, np.arange(n), side="right")
    for name, intervals in sample.exclude.items():
        for low, high in intervals:
            inside = (values[name] >= low) & (values[name] <= high)
            split[inside] = PARTS.index("excluded")
    bare = Dataset(
        sample=sample,
        conditions=_stack(values, sample.condition_names),
        targets=values[_CELLS] if sample.cells else _stack(values, sample.target_names),
        weights=weights.astype(np.float64),
        alternatives=np.reshape(list(others.values()), (len(others), n)).T.copy(),
        split=split,
        info={"alternatives": list(others)},
    )
    names = [name for name in PARTS if name != "excluded" or sample.exclude]
    parts = {name: bare.part(name).weights for name in names}
    for name, part in parts.items():
        if not part.sum() > 0:
            raise DatasetError(
                f"the {name} part has {len(part)} rows with a sum of weights of "
                f"{part.sum():g}, expected a positive number; more rows are needed"
            )
    described = {
        "hash": content_hash(bare),
        "seed": seed,
        "rows": {name: len(part) for name, part in parts.items()},
        "sum_weights": float(weights.sum()),
        "n_eff": float(weights.sum() ** 2 / np.sum(weights**2)),
        **info,
    }
    return Dataset(
        sample=sample,
        conditions=bare.conditions,
        targets=bare.targets,
        weights=bare.weights,
        alternatives=bare.alternatives,
        split=split,
        info=described,
    )


def _stack(
    values: dict[str, npt.NDArray[Any]], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    columns = [values[name].astype(np.float32) for name in names]
    return np.stack(columns, axis=1)


def _read_description(folder: Path) -> tuple[Sample, dict[str, Any]]:
    path = folder / _DESCRIPTION
    if not path.is_file():
        what = "no such folder" if not folder.exists() else f"no {_DESCRIPTION} in it"
        raise DatasetError(f"{folder} is not a dataset: {what}")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version, info = description["format"], description["info"]
        if version != FORMAT:
            raise DatasetError(
                f"dataset {folder} has format {version}, expected {FORMAT}; it was "
                f"written by another version, prepare it again"
            )
        sample = Sample.model_validate_json(json.dumps(description["sample"]))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} is damaged: {reason}") from None
    return sample, dict(info)


def _map_array(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise DatasetError(f"dataset {path.parent} lacks {path.name}") from None
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from None


def _check_shapes(dataset: Dataset, folder: Path) -> None:
    n = sum(dataset.info.get("rows", {}).values())
    sample = dataset.sample
    expected: dict[str, tuple[tuple[int, ...], type]] = {
        "conditions": ((n, len(sample.conditions)), np.float32),
        "targets": ((n, len(sample.targets)), np.float32),
        "weights": ((n,), np.float64),
        "alternatives": ((n, len(dataset.info.get("alternatives", ()))), np.float64),
        "split": ((n,), np.uint8),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(dataset, name)
        if array.shape != shape or array.dtype != dtype:
            raise DatasetError(
                f"dataset {folder}: {name}.npy holds {array.dtype} {array.shape}, "
                f"expected {np.dtype(dtype)} {shape}"
            )
