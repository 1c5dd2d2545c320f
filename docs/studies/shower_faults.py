"""How often the report of showers flags a fault, and a perfect generator.

    python docs/studies/shower_faults.py [pions.npz] [--toys 100] [--showers 3000]

A toy has real showers and as many generated ones of the same energies. Both are drawn
from the few showers that are next in energy, scaled to the energy wanted: the generator
is perfect. Then a fault is put into it:

- "shuffled": the responses are exchanged between showers of all energies;
- "no low tail": showers with less than half of the median response are replaced;
- "3 % at 0.3 E": three of a hundred showers have 0.3 of their energy;
- "1 % empty": one of a hundred showers has no energy.

Without a file the showers are those of a toy calorimeter, made here. A line for each
fault says in how many toys the report has flags. The classifiers, which take most of
the time of a report and see such faults too, are left out.
"""

import argparse

import numpy as np

from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.report.report import Report
from pidgan.report.shower_validation import compare_showers

FAULTS = ("none", "shuffled", "no low tail", "3 % at 0.3 E", "1 % empty")
NEIGHBOURS = 20  # showers next in energy, of which one is drawn
LOW, PARTIAL, MEDIAN_GROUP = 0.5, 0.3, 200
PARTIAL_SHARE, EMPTY_SHARE = 0.03, 0.01
LAYERS, CELLS = 10, 6


def toy_pions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Return energies (n,) of 2 to 100 GeV, cells, and the geometry of a toy stack.

    A shower starts at a random depth and leaks out behind; spots of energy fall into
    cells around its axis.
    """
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(2.0), np.log(100.0), n))
    start = rng.exponential(3.0, n)
    spots = rng.poisson(8 * energy**0.9) + 1
    owner = np.repeat(np.arange(n), spots)
    length = 1.0 + 0.3 * np.log(energy)
    z = start[owner] + rng.gamma(2.0, length[owner] / 2)
    r = rng.exponential(0.7, len(owner))
    alpha = rng.uniform(0, 2 * np.pi, len(owner))
    layer = np.floor(z).astype(int)
    i, j = (np.floor(r * f(alpha) + CELLS / 2).astype(int) for f in (np.cos, np.sin))
    inside = (layer < LAYERS) & (np.minimum(i, j) >= 0) & (np.maximum(i, j) < CELLS)
    size = LAYERS * CELLS**2
    place = (layer * CELLS + j) * CELLS + i + size * owner
    amount = (energy / spots)[owner] * rng.exponential(1.0, len(owner))
    cells = np.bincount(place[inside], amount[inside], size * n).reshape(n, size)
    some = cells.any(axis=1)  # others start behind the stack
    return energy[some], cells[some], _stack(LAYERS, CELLS)


def read_pions(path: str) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Return energies, cells and geometry of a file of voxels (n, layers, y, x)."""
    with np.load(path) as file:
        cells = file["voxels_GeV"].astype(np.float64)
        energy = file["conditions"][:, 0].astype(np.float64)
    return energy, cells.reshape(len(cells), -1), _stack(*cells.shape[1:3])


def perfect(
    energy: np.ndarray, cells: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return n energies with real and generated showers of one distribution."""
    rng = np.random.default_rng(seed)
    order = np.argsort(energy)
    middle = rng.integers(len(energy), size=n)
    wanted = energy[order[middle]]
    first = np.clip(middle - NEIGHBOURS // 2, 0, len(energy) - NEIGHBOURS)
    made = []
    for _ in range(2):
        picks = order[first + rng.integers(NEIGHBOURS, size=n)]
        made.append(cells[picks] * (wanted / energy[picks])[:, None])
    return wanted, made[0], made[1]


def spoil(fault: str, energy: np.ndarray, cells: np.ndarray, seed: int) -> np.ndarray:
    """Return generated showers with a fault."""
    rng = np.random.default_rng(seed)
    response = cells.sum(axis=1) / energy
    if fault == "shuffled":
        return cells * (rng.permutation(response) / response)[:, None]
    if fault == "no low tail":
        order = np.argsort(energy)
        groups = np.array_split(order, max(1, len(order) // MEDIAN_GROUP))
        new = cells.copy()
        for rows in groups:
            low = response[rows] < LOW * np.median(response[rows])
            others = rng.choice(rows[~low], size=int(low.sum()))
            scale = energy[rows[low]] / energy[others]
            new[rows[low]] = cells[others] * scale[:, None]
        return new
    share = {"3 % at 0.3 E": PARTIAL_SHARE, "1 % empty": EMPTY_SHARE}.get(fault, 0.0)
    chosen = rng.permutation(len(cells)) < round(share * len(cells))
    factor = PARTIAL if fault == "3 % at 0.3 E" else 0.0
    return np.where(chosen, factor, 1.0)[:, None] * cells


def judge(
    energy: np.ndarray, real: np.ndarray, made: np.ndarray, geometry: Geometry
) -> Report:
    """Return the report without what takes time and has no flags of its own."""
    return compare_showers(
        real,
        made,
        energy[:, None],
        geometry,
        names=["energy"],
        energy_unit="GeV",
        classifiers=False,
        distances=False,
    )


def count(
    pool: tuple[np.ndarray, np.ndarray, Geometry], toys: int, n: int, *, first: int = 0
) -> dict[str, int]:
    """Return in how many toys the report has a flag, by fault."""
    energy, cells, geometry = pool
    found = dict.fromkeys(FAULTS, 0)
    for seed in range(first, first + toys):
        wanted, real, made = perfect(energy, cells, n, seed)
        for fault in FAULTS:
            spoilt = spoil(fault, wanted, made, seed)
            report = judge(wanted, real, spoilt, geometry)
            found[fault] += bool(report.numbers["flags"])
    return found


def _stack(layers: int, cells: int) -> Geometry:
    plane = {"kind": "rectangular", "nx": cells, "ny": cells, "cell": [80, 80]}
    layer = plane | {"thickness": 100, "count": layers}
    return load_geometry({"name": "stack", "layers": [layer]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", help="showers of the pool (.npz)")
    parser.add_argument("--toys", type=int, default=100)
    parser.add_argument("--showers", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first toy")
    given = parser.parse_args()
    pool = read_pions(given.file) if given.file else toy_pions(given.showers, seed=1)
    found = count(pool, given.toys, given.showers, first=given.first)
    for fault, flags in found.items():
        print(f"{fault:14} flagged in {flags} of {given.toys}")


if __name__ == "__main__":
    main()
