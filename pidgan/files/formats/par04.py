"""HDF5 files of Geant4's example Par04: a dataset of showers for each energy.

The name of a dataset is the energy in GeV, its axes are showers, r, phi and z, and its
numbers are energies of cells in MeV. The name of a file ends in the angle in degrees,
"SiW_angle_90.h5". Here such a file is one table with the columns "energy" (GeV),
"angle" (degrees) and "showers", whose cells are in the order of a geometry: layer by
layer, in each the sectors, and in each sector the rings.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from pidgan.errors import NtupleError
from pidgan.files.trees import (
    Addition,
    Append,
    BranchType,
    PlainTree,
    entry_shape,
    row_slices,
)

_AXES = 4  # showers, r, phi, z


def is_par04(file: Any) -> bool:
    """Return whether an open HDF5 file has a dataset of showers for each energy."""
    names = list(file)
    return bool(names) and all(
        _is_number(name) and getattr(file[name], "ndim", 0) == _AXES for name in names
    )


@final
@dataclass(frozen=True)
class Par04Showers(PlainTree):
    """The showers of all energies of an open file, from the lowest energy up."""

    file: Any

    @property
    def entries(self) -> int:
        return int(self._ends[-1])

    def typenames(self, *, recursive: bool = True) -> dict[str, str]:
        found = {name: self.branch_type(name) for name in self._columns}
        return {name: str(kind) for name, kind in found.items()}

    def branch_type(self, name: str) -> BranchType | None:
        return self._columns[name]

    def stored_bytes(self, branches: Iterable[str]) -> int:
        wanted = set(branches)
        size = sum(int(dataset.nbytes) for dataset in self._datasets.values())
        return size if "showers" in wanted else 16 * self.entries

    def pieces(
        self, branches: Sequence[str], *, start: int, stop: int, chunk: int
    ) -> Iterator[Any]:
        return row_slices(start, stop, chunk)

    def arrays(self, piece: Any, branches: Sequence[str]) -> dict[str, Any]:
        parts: dict[str, list[Any]] = {name: [] for name in branches}
        begin = 0
        for (energy, dataset), end in zip(
            self._datasets.items(), self._ends, strict=True
        ):
            rows = slice(max(piece.start, begin) - begin, min(piece.stop, end) - begin)
            begin = int(end)
            if rows.stop <= rows.start:
                continue
            n = rows.stop - rows.start
            for name, found in parts.items():
                if name == "showers":
                    found.append(dataset[rows].transpose(0, 3, 2, 1).reshape(n, -1))
                else:
                    found.append(np.full(n, energy if name == "energy" else self.angle))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def copy(
        self, new: Any, addition: Addition, *, kept: Sequence[str], rows: int
    ) -> Append:
        raise NtupleError(
            f"{self.file.filename}: showers of Par04 are only read; `pidgan export "
            "--format hdf5-showers` writes those of a generator"
        )

    @functools.cached_property
    def angle(self) -> float:
        """The angle in degrees in the name of the file; 90, head on, without one."""
        found = re.search(r"angle_?(\d+(?:\.\d+)?)", Path(self.file.filename).stem)
        return float(found.group(1)) if found else 90.0

    @functools.cached_property
    def _datasets(self) -> Mapping[float, Any]:
        names = sorted(self.file, key=float)
        found = {float(name): self.file[name] for name in names}
        shapes = {dataset.shape[1:] for dataset in found.values()}
        if len(shapes) > 1:
            raise NtupleError(
                f"{self.file.filename}: showers of different shapes: "
                f"{', '.join(str(shape) for shape in sorted(shapes))}"
            )
        return found

    @functools.cached_property
    def _ends(self) -> Any:
        return np.cumsum([len(dataset) for dataset in self._datasets.values()])

    @functools.cached_property
    def _columns(self) -> dict[str, BranchType]:
        dataset = next(iter(self._datasets.values()))
        number = np.dtype(np.float64)
        return {
            "energy": BranchType(number),
            "angle": BranchType(number),
            "showers": BranchType(
                dataset.dtype.newbyteorder("="), entry_shape(dataset.shape[1:])
            ),
        }


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False
