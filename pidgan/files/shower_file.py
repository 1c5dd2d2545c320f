"""Files of showers in the layout of the CaloChallenge (arXiv:2410.21611).

An HDF5 file with two datasets in MeV: `incident_energies` (n, 1), and `showers`
(n, n_cells) with the cells in the order of the geometry. Numbers are in double
precision: the challenge's `evaluate.py` trains its classifiers in it and converts
nothing. Showers are written in blocks, so that they need not fit in memory.
"""

from collections.abc import Iterable
from pathlib import Path

from pidgan.arrays import FloatArray
from pidgan.files.formats.hdf5 import library
from pidgan.files.places import check_end
from pidgan.files.writing import writing_file

ENERGIES, SHOWERS = "incident_energies", "showers"
ENDS = (".hdf5", ".h5")
_CHUNK_NUMBERS = 2**17  # of a piece that is compressed, 1 MiB


def write_shower_file(
    path: str | Path,
    blocks: Iterable[tuple[FloatArray, FloatArray]],
    *,
    entries: int,
    n_cells: int,
    overwrite: bool = False,
) -> Path:
    """Write blocks of incident energies (k,) and showers (k, n_cells), in MeV.

    Args:
        path: Path of the file, ending in ".hdf5" or ".h5".
        blocks: Consecutive blocks of showers.
        entries: Number of showers of all blocks.
        n_cells: Number of cells.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        NtupleError: The file exists, cannot be written, or h5py is not installed.
    """
    check_end(path, ENDS)
    h5py = library(path)
    with (
        writing_file(path, overwrite=overwrite) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        rows = max(1, min(entries, _CHUNK_NUMBERS // n_cells))
        energies = file.create_dataset(ENERGIES, (entries, 1), dtype="f8")
        showers = file.create_dataset(
            SHOWERS,
            (entries, n_cells),
            dtype="f8",
            chunks=(rows, n_cells),
            compression="gzip",
            compression_opts=1,
        )
        done = 0
        for incident, cells in blocks:
            place = slice(done, done + len(incident))
            energies[place, 0] = incident
            showers[place] = cells
            done += len(incident)
    return Path(path)
