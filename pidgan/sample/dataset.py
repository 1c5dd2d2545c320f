"""A Dataset: conditions, targets, weights and split of a calibration sample."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan import higher
from pidgan.arguments import check_path, checked
from pidgan.errors import DatasetError, PidganError
from pidgan.files.documents import read_json
from pidgan.files.mapped import store_array, take_rows
from pidgan.files.recognition import missing, refuse_other
from pidgan.files.seals import (
    SEAL,
    add_arrays,
    check_seal,
    file_sha256,
    part_of,
    read_set,
    reason,
    sealed,
)
from pidgan.files.writing import refuse_existing, refuse_foreign, writing_set_folder
from pidgan.notebook import Facts, count, listed, shown
from pidgan.sample.definition import Sample
from pidgan.sample.events import EVENT
from pidgan.sample.variables import DISCRIMINANT

ALTERNATIVE_WEIGHT = "weight_"
"""Prefix of the columns that hold the weights of other mass fits."""


def is_of_weights(column: str) -> bool:
    """Return whether a column of rows says of their weights, or of their events."""
    return column.startswith(ALTERNATIVE_WEIGHT) or column in (DISCRIMINANT, EVENT)


PartName = Literal["train", "validation", "test", "excluded"]

#: Parts in the order of their code in `Dataset.split`.
PARTS: tuple[PartName, ...] = ("train", "validation", "test", "excluded")
#: Version of the folder's layout.
FORMAT = 3
#: Version with columns that are kept for denominators, which others do not know.
WITH_KEPT = 4
#: Version with the discriminant of each row, and perhaps such columns.
WITH_DISCRIMINANT = 5
#: Version without hashes of the files, which version 0.1 of this package wrote.
UNSEALED = 2
_ARRAYS = ("conditions", "targets", "weights", "alternatives", "split")
_DESCRIPTION = "dataset.json"
#: Picture of the mass fit, where there is one.
MASS_FIT = "mass_fit.png"
# Types of what is used of `info`.
_INFO: dict[str, Any] = {
    **dict.fromkeys(("rows", "dropped"), dict),
    **dict.fromkeys(("sum_weights", "n_eff"), int | float),
    "rows_read": int,
    "alternatives": list,
    "hash": str,
}


@shown
@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one part: conditions (n, c), targets (n, t) and weights, package units.

    The weights (n,) are of either sign; `alternatives` (n, a) are the weights of other
    mass fits, `kept` (n, k) further columns, and `discriminant` (n,) is the variable
    that the weights are fitted in, NaN where the dataset does not have it.
    """

    conditions: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    alternatives: npt.NDArray[np.float64]
    kept: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    discriminant: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        n = len(self.weights)
        if self.kept.shape == (0, 0):
            object.__setattr__(self, "kept", np.zeros((n, 0)))
        if self.discriminant.shape == (0,):
            object.__setattr__(self, "discriminant", np.full(n, np.nan))

    def _facts(self) -> Facts:
        shapes = {name: np.shape(value) for name, value in vars(self).items()}
        return Facts(count(len(self.weights), "rows"), shapes)


@shown
@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The rows that a generator is trained on and judged by.

    Attributes:
        sample: Definition of the calibration sample.
        conditions: Conditions (n, c) float32, in the order of `sample.conditions`,
            package units.
        targets: Targets (n, t) float32, in the order of `sample.targets`, sentinels
            included, package units.
        weights: Weights (n,) float64, of either sign, with a positive sum.
        alternatives: sWeights (n, a) float64 of other mass fits.
        split: Number of the part of each row (n,) uint8: 0 train, 1 validation, 2 test,
            3 excluded, which are rows inside the intervals of `sample.exclude`.
        info: Hash, names of the alternatives, seed, files, rows read, kept and dropped
            with the reason, the share of rows by target and value for each value
            outside its range that many have ("spikes"), the value of each optional
            condition that is left out ("left_out"; null if there is no branch), sums of
            weights, a summary of the mass fit if there was one, and the names of
            `kept`.
        kept: Further columns (n, k) float64 of the rows, as they were stored, for
            denominators of efficiencies.
        discriminant: Variable (n,) float64 that the sWeights are fitted in, package
            units. It is empty if the weights were given, and in datasets that were
            prepared before version 0.2.
    """

    sample: Sample
    conditions: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    alternatives: npt.NDArray[np.float64]
    split: npt.NDArray[np.uint8]
    info: dict[str, Any]
    kept: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    discriminant: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    plot = higher.plot

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Names of the further columns."""
        return tuple(self.info.get("kept", ()))

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are written."""
        further = {"kept": self.kept_names, "discriminant": self.has_discriminant}
        return (*_ARRAYS, *(name for name, has in further.items() if has))

    @property
    def has_discriminant(self) -> bool:
        """Whether the variable that the sWeights are fitted in is there."""
        return self.discriminant.size > 0

    @checked
    def part(self, name: PartName) -> Part:
        """Return the rows of one part.

        Args:
            name: "train", "validation", "test" or "excluded".
        """
        if name not in PARTS:
            raise ValueError(f"part is {name!r}, expected one of {', '.join(PARTS)}")
        rows = np.flatnonzero(self.split == PARTS.index(name))
        arrays = ["conditions", "targets", "weights", "alternatives"]
        arrays += ["discriminant"] if self.has_discriminant else []
        arrays += ["kept"] if self.kept_names else []
        return Part(**{key: take_rows(getattr(self, key), rows) for key in arrays})

    @checked
    def frame(self, name: PartName) -> pd.DataFrame:
        """Return one part as a table.

        Args:
            name: "train", "validation", "test" or "excluded".

        Returns:
            A column for each condition and target, "weight", and "weight_<name>" for
            the weights of each other mass fit, a column for each further branch that
            was kept, and "sweight_discriminant", if it is there.
        """
        return self.frame_of(self.part(name))

    def frame_of(self, part: Part) -> pd.DataFrame:
        """Return rows of this dataset as a table, as `frame` does."""
        names = self.sample.condition_names + self.sample.target_names
        columns = [*part.conditions.T, *part.targets.T]
        frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
        frame["weight"] = part.weights
        others = [f"{ALTERNATIVE_WEIGHT}{n}" for n in self.info.get("alternatives", ())]
        more = zip(others, part.alternatives.T, strict=True)
        kept = dict(zip(self.kept_names, part.kept.T, strict=True))
        if self.has_discriminant:
            kept[DISCRIMINANT] = part.discriminant
        return frame.assign(**dict(more), **kept)

    def text(self) -> str:
        """Return the numbers of rows kept and dropped, and the sums of weights."""
        info = self.info
        lines = [
            f"{len(self)} of {info['rows_read']} rows, sum of weights "
            f"{info['sum_weights']:.1f}, effective size {info['n_eff']:.0f}"
        ]
        if "events" in info:
            lines.append(f"  {info['events']} events, of several rows")
        if "sweights" in info:
            lines.append(f"  weights: {info['sweights']}")
            ties = sum(file.get("ties", 0) for file in info["files"])
            lines += [f"  ties: {ties} rows equal another one in all of `order`"][:ties]
        if "chi2" in info.get("fit", {}):
            lines.append(f"  {fit_text(info['fit'], self.sample)}")
        dropped = info["dropped"].items()
        lines += [f"  dropped {rows}: {reason}" for reason, rows in dropped]
        lines += [
            f"  {name} = {value} in {share:.2%} of the rows, outside its range"
            for name, found in info.get("spikes", {}).items()
            for value, share in found.items()
        ]
        lines += [
            f"  left out {name}: "
            + ("no branch" if value is None else f"always {value:g}")
            for name, value in info.get("left_out", {}).items()
        ]
        return "\n".join(lines)

    @checked
    def save(
        self,
        path: str | Path,
        *,
        mass_fit: bytes | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write the dataset to a folder, whole or not at all.

        Args:
            path: Folder of the dataset.
            mass_fit: Picture of the mass fit, a PNG file, which lies beside the arrays.
            overwrite: Replace an existing dataset.
        """
        refuse_existing(path, overwrite=overwrite)
        if Path(path).exists():
            refuse_foreign(Path(path), _DESCRIPTION)
        names = [f"{name}.npy" for name in self.arrays]
        parts = (*names, MASS_FIT)
        with writing_set_folder(path, _DESCRIPTION, *parts, overwrite=overwrite) as (
            head,
            *files,
            picture,
        ):
            for name, file in zip(self.arrays, files, strict=True):
                store_array(getattr(self, name), file)
            if mass_fit is not None:
                picture.write_bytes(mass_fit)
            written = [file for file in (*files, picture) if file.exists()]
            hashes = map(file_sha256, written)
            description = {
                "format": self._format,
                "sample": self.sample.model_dump(mode="json", by_alias=True),
                "info": {**self.info, "hash": content_hash(self)},
                "files": dict(zip(parts, hashes, strict=False)),
            }
            text = json.dumps(sealed(description), indent=1)
            head.write_text(text, encoding="utf-8")
        return Path(path)

    @classmethod
    @checked
    def open(cls, path: "str | Path | Dataset", *, verify: bool = True) -> "Dataset":
        """Open a dataset; its arrays are mapped from disk, not read into memory.

        Args:
            path: Folder that `save` wrote; a dataset is returned unchanged.
            verify: Compare the content with its hash, which takes about a second per
                gigabyte.

        Raises:
            DatasetError: The folder holds no dataset, or a damaged one.
        """
        if isinstance(path, Dataset):
            return path
        check_path("open", path)
        folder = Path(path)
        return read_set(folder / _DESCRIPTION, lambda: _open(folder, verify=verify))

    @property
    def _format(self) -> int:
        if self.has_discriminant:
            return WITH_DISCRIMINANT
        return WITH_KEPT if self.kept_names else FORMAT

    def _facts(self) -> Facts:
        info, sample = self.info, self.sample
        rows, dropped = (info.get(name, {}).items() for name in ("rows", "dropped"))
        return Facts(
            f"{sample.name}, {sample.species}: {count(len(self), 'rows')}, effective "
            f"size {info.get('n_eff', 0):,.0f}",
            {
                "title": sample.title,
                "conditions": listed(sample.condition_names),
                "targets": listed(sample.target_names),
                "parts": listed([f"{n:,} {name}" for name, n in rows]),
                "sum of weights": f"{info.get('sum_weights', 0):,.1f}",
                "dropped": listed([f"{n:,} {why}" for why, n in dropped]),
            },
        )


def _open(folder: Path, *, verify: bool) -> Dataset:
    try:
        sample, info, hashes = _read_description(folder)
        further = ["kept"] if info.get("kept") else []
        further += ["discriminant"] if "discriminant.npy" in (hashes or {}) else []
        names = (*_ARRAYS, *further)
        files = {name: folder / f"{name}.npy" for name in names}
        if hashes is not None:
            files = {
                name: part_of(file, hashes[file.name], verify=verify)
                for name, file in files.items()
            }
        arrays = {name: _map_array(file) for name, file in files.items()}
        dataset = Dataset(sample=sample, info=info, **arrays)
        _check_shapes(dataset, folder)
        if hashes is None and verify and content_hash(dataset) != info.get("hash"):
            raise ValueError(
                f"its content does not have the recorded hash {info.get('hash')}; "
                "prepare it again"
            )
    except PidganError:
        raise
    # A damaged file of version 0.1, which has no hashes, may raise whatever there is.
    except Exception as error:
        text = f"dataset {folder} is damaged: {reason(error)}"
        raise DatasetError(text) from error
    return dataset


def fit_text(fit: Mapping[str, Any], sample: Sample) -> str:
    """Return yields, purity and chi-square of a mass fit in one line."""
    (signal, of_signal), (background, of_background) = (
        fit["yields"][kind] for kind in ("signal", "background")
    )
    low, high = sample.discriminant.range if sample.discriminant else (0.0, 0.0)
    return (
        f"mass fit: {signal:.0f} +- {of_signal:.0f} signal, {background:.0f} +- "
        f"{of_background:.0f} background, purity {signal / (signal + background):.1%} "
        f"in {low:g} to {high:g} MeV, chi2/ndof {fit['chi2']:.0f}/{fit['n_dof']}, "
        f"p-value {fit['p_value']:.2g}"
    )


def content_hash(dataset: Dataset) -> str:
    """Return the sha256 of the definition and of all arrays, in hexadecimal."""
    # Without defaults, so that a field added later leaves the hashes as they are.
    sample = dataset.sample.model_dump_json(by_alias=True, exclude_defaults=True)
    digest = hashlib.sha256(sample.encode())
    # Without the discriminant, which changes nothing that follows from the rows.
    names = [name for name in dataset.arrays if name != "discriminant"]
    add_arrays(digest, {name: getattr(dataset, name) for name in names})
    return digest.hexdigest()


def _read_description(
    folder: Path,
) -> tuple[Sample, dict[str, Any], dict[str, str] | None]:
    """Return definition, description, and hashes of the files, None of version 0.1."""
    path = folder / _DESCRIPTION
    if not path.is_file():
        refuse_other(folder, "dataset", error=DatasetError)
        what = f"{folder} is not a dataset: no {_DESCRIPTION} in it"
        raise DatasetError(what if folder.exists() else missing(folder, "dataset"))
    try:
        description = read_json(path, error=DatasetError)
        version = description["format"]
        known = (FORMAT, UNSEALED, WITH_KEPT, WITH_DISCRIMINANT)
        is_known = type(version) is int and version in known
        if not is_known:
            raise DatasetError(
                f"dataset {folder} has format {repr(version)[:40]}, expected {FORMAT}; "
                "it was written by another version, prepare it again"
            )
        if version != UNSEALED or SEAL in description:
            check_seal(description)
        written = json.dumps(description["sample"])
        sample = Sample.model_validate_json(written, context={"written": True})
        info = _checked(description["info"])
        json.dumps(description, ensure_ascii=False).encode()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DatasetError(f"{path} is damaged: {reason(error)}") from None
    return sample, info, None if version == UNSEALED else description["files"]


def _checked(info: Any) -> dict[str, Any]:
    """Return the information on a dataset; a ValueError if it is not of its types."""
    if not isinstance(info, dict):
        raise ValueError(f"info is a {type(info).__name__}, expected an object")
    for name, kind in _INFO.items():
        if not isinstance(info.get(name), kind):
            raise ValueError(f"{name!r} of info is {repr(info.get(name))[:40]}")
    counts = [*info["rows"].values(), *info["dropped"].values()]
    texts = [info["hash"], *info["alternatives"], *info["rows"], *info.get("kept", ())]
    spikes = info.get("spikes", {})  # Version 0.1 did not look for any.
    shares = [share for found in spikes.values() for share in found.values()]
    if not all(isinstance(share, float) for share in shares):
        raise ValueError("a share of a spike in info is no number")
    left_out = info.get("left_out", {})
    if not isinstance(left_out, dict) or not all(
        value is None or isinstance(value, float) for value in left_out.values()
    ):
        raise ValueError(f"'left_out' of info is {repr(left_out)[:40]}")
    if not all(type(count) is int for count in counts):
        raise ValueError("a number of rows in info is no whole number")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name in info is no text")
    return info


def _map_array(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise DatasetError(f"dataset {path.parent} lacks {path.name}") from None
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from None


def _check_shapes(dataset: Dataset, folder: Path) -> None:
    n, sample = sum(dataset.info.get("rows", {}).values()), dataset.sample
    others = dataset.info.get("alternatives", ())
    expected: dict[str, tuple[tuple[int, ...], type]] = {
        "conditions": ((n, len(sample.conditions)), np.float32),
        "targets": ((n, len(sample.targets)), np.float32),
        "weights": ((n,), np.float64),
        "alternatives": ((n, len(others)), np.float64),
        "split": ((n,), np.uint8),
    }
    if names := dataset.kept_names:
        expected["kept"] = ((n, len(names)), np.float64)
    if dataset.has_discriminant:
        expected["discriminant"] = ((n,), np.float64)
    for name, (shape, dtype) in expected.items():
        array = getattr(dataset, name)
        if array.shape != shape or array.dtype != dtype:
            raise DatasetError(
                f"dataset {folder}: {name}.npy holds {array.dtype} {array.shape}, "
                f"expected {np.dtype(dtype)} {shape}"
            )
