"""Simulated tracks: kinematics, species, charge, event numbers, branches of a probe.

ln pT and eta are normal within LHCb's acceptance; p = pT cosh(eta) makes the two
correlate as in data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import AnyArray, FloatArray, IntArray
from pidgan.errors import nearest
from pidgan.simulation.detector import PDG_IDS

P_RANGE = (3000.0, 200000.0)  # momenta of long tracks in the samples, MeV
ETA_RANGE = (1.5, 5.5)  # smallest and largest pseudorapidity in the samples
MAX_TRACKS = 1000  # number of tracks that every event stays below
MEAN_TRACKS = 180.0  # mean number of tracks of a triggered Run 2 event
TRACKS_SHAPE = 3.0  # shape of the gamma distribution of the number of tracks
SPD_PER_TRACK = 1.9  # mean hits in the scintillating pad detector for each track
SPD_SPREAD = 0.2  # relative spread of the hits for a given number of tracks


@dataclass(frozen=True)
class Spectrum:
    """Medians and spreads of ln pT (pT in MeV) and of eta."""

    pt_median: float
    pt_spread: float
    eta_mean: float
    eta_spread: float


# The medians put the most probable momenta where LHCb's 2016 calibration samples have
# them: 3 GeV for pions, 7 GeV for muons, 9 GeV for kaons and 12 GeV for protons.
SPECTRA = {
    "dstar_k": Spectrum(1430.0, 0.73, 3.35, 0.5),
    "dstar_pi": Spectrum(720.0, 0.88, 3.3, 0.5),
    "lambda_p": Spectrum(1800.0, 0.7, 3.35, 0.5),
    "jpsi_mu": Spectrum(1250.0, 0.7, 3.25, 0.5),
    "jpsi_e": Spectrum(1100.0, 0.7, 3.25, 0.5),
}


_NAMES = (("pi+", "pi-"), ("K+", "K-"), ("p", "p~"), ("mu+", "mu-"), ("e+", "e-"))
# Index into `HYPOTHESES` of each particle name (names of the package `particle`).
SPECIES = {name: index for index, names in enumerate(_NAMES) for name in names}
Branches = dict[str, AnyArray]


@dataclass(frozen=True)
class Tracks:
    """True tracks (n,): index into `HYPOTHESES`, p in MeV, eta, tracks of the event."""

    species: AnyArray
    p: AnyArray
    eta: AnyArray
    n_tracks: AnyArray

    def take(self, rows: Any) -> "Tracks":
        """Return some of the tracks."""
        return Tracks(*(column[rows] for column in vars(self).values()))


def draw_p_eta(
    spectrum: Spectrum, n: int, *, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw p (n,), MeV, and eta (n,) within `P_RANGE` and `ETA_RANGE`."""
    p, eta = np.empty(0), np.empty(0)
    while len(p) < n:
        more = int(1.3 * (n - len(p))) + 100
        pt = np.exp(spectrum.pt_spread * rng.standard_normal(more))
        new_eta = rng.normal(spectrum.eta_mean, spectrum.eta_spread, more)
        new_p = spectrum.pt_median * pt * np.cosh(new_eta)
        inside = (new_p >= P_RANGE[0]) & (new_p <= P_RANGE[1])
        inside &= (new_eta >= ETA_RANGE[0]) & (new_eta <= ETA_RANGE[1])
        p = np.concatenate([p, new_p[inside]])
        eta = np.concatenate([eta, new_eta[inside]])
    return p[:n], eta[:n]


def draw_occupancy(
    n: int, *, scale: float = 1.0, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Draw nTracks, 1 ... 999, and nSPDhits of n events, (n,) each."""
    mean = scale * MEAN_TRACKS
    drawn = rng.gamma(TRACKS_SHAPE, mean / TRACKS_SHAPE, n)
    n_tracks = np.clip(np.rint(drawn), 1, MAX_TRACKS - 1).astype(np.int32)
    spread = np.exp(SPD_SPREAD * rng.standard_normal(n))
    n_spd = rng.poisson(SPD_PER_TRACK * n_tracks * spread).astype(np.int32)
    return n_tracks, n_spd


def momentum_components(
    p: AnyArray, eta: AnyArray, *, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Return PT, PX, PY and PZ (n,) in the unit of p, with a uniform azimuth."""
    phi = rng.uniform(-np.pi, np.pi, len(p))
    pt = p / np.cosh(eta)
    return {
        "PT": pt,
        "PX": pt * np.cos(phi),
        "PY": pt * np.sin(phi),
        "PZ": pt * np.sinh(eta),
    }


def true_ids(species: int | AnyArray, charge: AnyArray) -> IntArray:
    """Return the PDG identifiers (n,) of species with the given charges."""
    return np.asarray(PDG_IDS[species] * charge, dtype=np.int32)


def draw_charges(n: int, *, rng: np.random.Generator) -> IntArray:
    """Draw charges (n,) of +1 and -1, equally often."""
    return np.where(rng.random(n) < 0.5, np.int32(1), np.int32(-1))


def draw_event_numbers(
    n: int, runs: tuple[int, int], *, rng: np.random.Generator
) -> Branches:
    """Draw `runNumber`, between two runs, and `eventNumber`, (n,) each."""
    return {
        "runNumber": rng.integers(*runs, n, dtype=np.uint32, endpoint=True),
        "eventNumber": rng.integers(1, 2**40, n, dtype=np.uint64),
    }


def probe_branches(p: FloatArray, eta: FloatArray, charge: IntArray) -> Branches:
    """Return the branches (n,) of kinematics and charge of a probe."""
    return {
        "probe_P": p,
        "probe_PT": p / np.cosh(eta),
        "probe_ETA": eta,
        "probe_trackcharge": charge,
    }


def in_chunks(
    respond: Callable[..., Branches], columns: Sequence[AnyArray], *, size: int
) -> Branches:
    """Return the response to columns, computed for `size` tracks at a time."""
    parts = [
        respond(*(column[start : start + size] for column in columns))
        for start in range(0, len(columns[0]), size)
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def check_species(species: str, known: Sequence[str]) -> None:
    """Raise a ValueError if a species is not among those known."""
    if species not in known:
        raise ValueError(f"unknown species {species!r}{nearest(species, known)}")


def checked_columns(
    columns: Mapping[str, tuple[ArrayLike, float, float]],
) -> list[FloatArray]:
    """Return columns (n,), given with their smallest and largest values allowed."""
    arrays: list[FloatArray] = [np.asarray(v, np.float64) for v, *_ in columns.values()]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        *names, last = columns
        raise ValueError(
            f"{', '.join(names)} and {last} have shapes "
            f"{', '.join(map(str, shapes))}, expected one dimension, equal lengths and "
            "at least one track"
        )
    for array, (name, (_, low, high)) in zip(arrays, columns.items(), strict=True):
        if not np.all((array >= low) & (array <= high)):
            raise ValueError(
                f"{name} has values from {array.min():g} to {array.max():g}, expected "
                f"values between {low:g} and {high:g}"
            )
    return arrays
