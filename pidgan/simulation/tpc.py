"""Ionisation of tracks in a time projection chamber, cluster by cluster.

Along a track every pad row collects a cluster of electrons. Primary collisions are
Poisson distributed with the mean of Bethe and Bloch; each frees electrons with the
1/E^2.2 spectrum of delta rays, which makes the charge of a row Landau-like. Losses,
drift, gain, saturation and other tracks act on the clusters. What the detector
measures is the mean of the lowest clusters, and its distance in standard deviations
to what a hypothesis expects.

Gas and pad rows are those of ALICE (Ne/CO2, 159 rows: arXiv:1001.1950); the numbers of
the ionisation are those of its simulation. Use `simulate_tpc` for a calibration sample
and `simulate_tpc_response` for the truth at given conditions.
"""

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.errors import nearest
from pidgan.simulation.combined import SPECIES, true_ids
from pidgan.simulation.detector import MASSES

FloatArray = npt.NDArray[np.float64]

TPC_TREE = "TPC/DecayTree"
"""Tree of `simulate_tpc`."""

TPC_SPECIES = ("e+", "mu+", "pi+", "K+", "p")
"""Species that `pidgan simulate tpc` offers; antiparticles respond alike."""

NO_MEASUREMENT = -999.0
"""Value of `TPC_dEdxInner` of tracks without inner clusters."""

ROW_HEIGHTS = np.repeat([7.5, 10.0, 15.0], [63, 64, 32])
"""Radial length of each pad row in mm, inner chamber first: arXiv:1001.1950."""

N_ROWS = len(ROW_HEIGHTS)
N_INNER = 63

_GAPS = np.where(np.arange(N_ROWS) < N_INNER, 848.5, 1346.0 - ROW_HEIGHTS[:63].sum())
ROW_RADII = _GAPS + np.cumsum(ROW_HEIGHTS) - 0.5 * ROW_HEIGHTS
"""Radius of the middle of each pad row in mm."""

DRIFT_LENGTH = 2500.0
"""From the central electrode to the pads, mm."""

BETHE_BLOCH = (0.76176e-1, 10.632, 0.13279e-4, 1.8631, 1.9479)
"""P1 ... P5 of `bethe_bloch` as in ALICE's simulation (AliRoot, TPC)."""

PRIMARIES = 1.435
"""Primary collisions of a minimum-ionising particle per mm (AliRoot, AliTPCv2)."""

COLLISION_ENERGIES = (20.77, 10e3)
"""First ionisation potential of Ne and cut-off, eV (AliRoot, AliTPCv2). Electrons above
the cut-off leave the row as tracks of their own."""

SPECTRUM_EXPONENT = 2.2
"""Of the energy of a primary collision (AliRoot, AliTPCv2)."""

PAIR_ENERGY = 35.97
"""Energy to free an electron, eV (AliRoot, AliTPCv2)."""

THRESHOLD = 12.0
"""Fewest electrons of a cluster that survives zero suppression. Chosen: about a fifth
of a minimum-ionising particle's, so that few are lost."""

SATURATION = 1000.0
"""Electrons at which a cluster fills the range of the converters. Chosen."""

ATTACHMENT = 0.05 / DRIFT_LENGTH
"""Electrons lost to oxygen per mm of drift. Chosen; corrected for on average."""

GAIN_SPREAD = 0.025
"""Spread of the gain left by the calibration, common to a track, in an empty event; it
is 60 % more at `OCCUPANCY_UNIT`. Chosen for the resolutions of 5.2 % of isolated tracks
and 6.5 % in central Pb-Pb collisions: arXiv:1402.4476."""

OCCUPANCY_UNIT = 10_000.0
"""Tracks of an event in which the two following effects are given."""

OVERLAP = 0.6
"""Share of clusters with charge of another track; its mean is half of a
minimum-ionising particle's. Chosen."""

BASELINE = 0.19
"""Relative signal lost to the shifted baseline. Chosen."""

TRUNCATION = 0.6
"""Share of the clusters, the lowest, that are averaged: arXiv:1402.4476."""

MIP_SIGNAL = 50.0
"""Truncated mean of a minimum-ionising particle, by ALICE's convention."""

MIP_CHARGE = 2.23
"""Truncated mean of such a particle, electrons per mm, in this simulation."""

EXPECTED = (9e-4, 0.935, 0.431, -0.312, 0.0739)
"""Coefficients c_k of ln(expected / MIP) = sum c_k ln^k(f / f_min), fitted to
simulated tracks of all species with 140 clusters in events with 500 tracks."""

RESOLUTION = (0.027, 0.55)
"""a and b of the expected relative resolution, sqrt(a^2 + b^2 / nClusters), fitted
likewise to minimum-ionising particles."""

MIN_CLUSTERS = 70
"""Fewest clusters of a track that the sample keeps, as ALICE's analyses do."""

INNER_OFF = 0.05
"""Share of tracks through a switched-off inner chamber, among those with no more
clusters than the outer one has rows."""

FOUND_SHAPE = 9.0
"""a of the distribution Beta(a, 1) of the share of rows that a track crosses alive."""

P_RANGE = (300.0, 20e3)
"""Momenta that the sample keeps, MeV."""

MAX_ETA = 0.9
"""Tracks reach all pad rows within this |eta|."""

MAX_TRACKS = 10_000
"""Exclusive upper bound on the tracks of an event."""

PT_SPECTRA = {"e+": 0.7, "mu+": 0.9, "pi+": 0.8, "K+": 1.0, "p": 1.2}
"""Median transverse momentum of each species, GeV; the spread of ln pT is 0.8."""

CHUNK = 4096
"""Tracks at a time: their clusters fit into a CPU cache."""

_LAMBDAS = np.geomspace(2.0, 1000.0, 96)
_SCORES = np.linspace(-5.0, 5.0, 513)
_BINS = 8192


def bethe_bloch(beta_gamma: npt.ArrayLike) -> FloatArray:
    """Return the mean ionisation relative to the minimum.

    f(bg) = P1 / beta^P4 (P2 - beta^P4 - ln(P3 + 1 / bg^P5)), over its minimum: the
    parametrisation of ALEPH and ALICE (arXiv:1402.4476, Eq. 5; W. Blum, W. Riegler,
    L. Rolandi, Particle Detection with Drift Chambers, 2nd ed., Sec. 10) of the curves
    of W. Allison and J. Cobb, Ann. Rev. Nucl. Part. Sci. 30 (1980) 253.

    Args:
        beta_gamma: p / m, any shape.

    Example:
        >>> float(bethe_bloch(3.6).round(2))
        1.0
    """
    return np.asarray(_aleph(np.asarray(beta_gamma, dtype=np.float64)) / _minimum())


def expected_dedx(p: npt.ArrayLike, species: str) -> FloatArray:
    """Return the truncated mean expected of a species, in units of `MIP_SIGNAL` / 50.

    Args:
        p: momenta, (n,), MeV.
        species: one of `SPECIES`.
    """
    ratio = np.log(bethe_bloch(np.asarray(p) / MASSES[_index(species)]))
    powers = [c * ratio**k for k, c in enumerate(EXPECTED)]
    return np.asarray(MIP_SIGNAL * np.exp(np.sum(powers, axis=0)))


def n_sigma(
    dedx: npt.ArrayLike, p: npt.ArrayLike, n_clusters: npt.ArrayLike, *, species: str
) -> FloatArray:
    """Return (dedx - expected) / (expected resolution) for a hypothesis.

    The expectations know the momentum and the number of clusters, not the angle nor
    the occupancy, as the simpler ones of ALICE (arXiv:1402.4476, Sec. 7.2). The values
    of two hypotheses are functions of each other at given conditions.

    Args:
        dedx: truncated means, (n,).
        p: momenta, (n,), MeV.
        n_clusters: clusters of each track, (n,).
        species: the hypothesis, one of `SPECIES`.

    Example:
        >>> signal = expected_dedx([1000.0], "K+")
        >>> n_sigma(signal, [1000.0], [140], species="K+")
        array([0.])
    """
    expected = expected_dedx(p, species)
    a, b = RESOLUTION
    width = np.sqrt(a**2 + b**2 / np.asarray(n_clusters, dtype=np.float64))
    return np.asarray((np.asarray(dedx) - expected) / (width * expected))


def simulate_tpc_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_clusters: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
) -> dict[str, npt.NDArray[np.float32]]:
    """Draw the true response of tracks of one species; another seed, another draw.

    Args:
        species: true species, one of `SPECIES`; the charge does not matter.
        p: momenta, (n,), MeV.
        eta: pseudorapidities, (n,), within +-`MAX_ETA`.
        n_clusters: clusters of each track, (n,), 1 ... 159.
        n_tracks: tracks of each track's event, (n,).
        seed: of the random generator.

    Returns:
        `TPC_dEdx` and `TPC_dEdxInner`, the truncated means of all and of the inner
        clusters (`NO_MEASUREMENT` without inner ones), and `TPC_NSigma{e,mu,pi,k,p}`,
        each (n,).

    Raises:
        ValueError: unknown species, unequal lengths or impossible values.

    Example:
        >>> response = simulate_tpc_response("K+", [1e3], [0.3], [140], [100], seed=1)
        >>> response["TPC_dEdx"].shape
        (1,)
    """
    index = _index(species)
    columns = [
        np.asarray(column, dtype=np.float64)
        for column in (p, eta, n_clusters, n_tracks)
    ]
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or columns[0].ndim != 1 or columns[0].size == 0:
        raise ValueError(
            "p, eta, n_clusters and n_tracks must be one-dimensional, not empty and "
            f"equally long, got shapes {', '.join(str(c.shape) for c in columns)}"
        )
    ranges = ((0.0, np.inf), (-MAX_ETA, MAX_ETA), (1, N_ROWS), (0.0, np.inf))
    names = ("p", "eta", "n_clusters", "n_tracks")
    for name, column, (low, high) in zip(names, columns, ranges, strict=True):
        if not np.all((column >= low) & (column <= high)):
            raise ValueError(f"{name} must lie between {low:g} and {high:g}")
    rng = np.random.default_rng(seed)
    parts = [
        _respond(index, *(column[start : start + CHUNK] for column in columns), rng=rng)
        for start in range(0, len(columns[0]), CHUNK)
    ]
    dedx, inner = np.concatenate(parts, axis=1)
    result = {"TPC_dEdx": dedx, "TPC_dEdxInner": inner}
    for name, hypothesis in zip(("e", "mu", "pi", "k", "p"), TPC_SPECIES, strict=True):
        result[f"TPC_NSigma{name}"] = n_sigma(
            dedx, columns[0], columns[2], species=hypothesis
        )
    return {name: value.astype(np.float32) for name, value in result.items()}


def simulate_tpc(
    species: str, n: int, *, seed: int = 1
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Simulate a calibration sample of n tracks of one species, without background.

    Args:
        species: one of `TPC_SPECIES`; half of the tracks are antiparticles.
        n: tracks.
        seed: of the random generator.

    Returns:
        The branches of the tree `TPC_TREE`: conditions, `simulate_tpc_response` with
        the prefix `probe_`, charge and `probe_TRUEID`.

    Raises:
        ValueError: unknown species or no tracks.

    Example:
        >>> trees = simulate_tpc("K+", 100, seed=1)
        >>> len(trees[TPC_TREE]["probe_TPC_NSigmak"])
        100
    """
    if species not in TPC_SPECIES:
        raise ValueError(f"unknown species {species!r}{nearest(species, TPC_SPECIES)}")
    if n < 1:
        raise ValueError(f"n must be a positive number of tracks, got {n}")
    rng = np.random.default_rng([seed, TPC_SPECIES.index(species)])
    p, eta, n_clusters, n_tracks = _draw_conditions(species, n, rng)
    charge = np.where(rng.random(n) < 0.5, np.int32(1), np.int32(-1))
    response = simulate_tpc_response(
        species, p, eta, n_clusters, n_tracks, seed=int(rng.integers(2**63))
    )
    index = np.full(n, _index(species))
    branches = {
        "probe_P": p,
        "probe_PT": p / np.cosh(eta),
        "probe_ETA": eta,
        "probe_trackcharge": charge,
        "probe_TPC_nClusters": n_clusters,
        "nTracks": n_tracks,
        **{f"probe_{name}": value for name, value in response.items()},
        "probe_TRUEID": true_ids(index, charge),
    }
    return {TPC_TREE: branches}


def _index(species: str) -> int:
    if species not in SPECIES:
        raise ValueError(f"unknown species {species!r}{nearest(species, SPECIES)}")
    return SPECIES[species]


def _aleph(bg: FloatArray) -> FloatArray:
    """Return the parametrisation as it is written, in its own unit."""
    p1, p2, p3, p4, p5 = BETHE_BLOCH
    beta = (bg / np.sqrt(1.0 + bg**2)) ** p4
    return np.asarray(p1 / beta * (p2 - beta - np.log(p3 + bg**-p5)))


@functools.cache
def _minimum() -> float:
    return float(_aleph(np.geomspace(2.0, 6.0, 4001)).min())


@functools.cache
def _electron_quantiles() -> npt.NDArray[np.float32]:
    """Tabulate the electrons of a row, (96, 513): by mean collisions, normal score.

    A compound Poisson distribution, exact by its characteristic function: with the
    spectrum's transform s, that of the sum is exp(lambda (s - 1)).
    """
    low, high = COLLISION_ENERGIES
    edges = low + PAIR_ENERGY * np.arange(int((high - low) / PAIR_ENERGY) + 1)
    tail = np.append(edges, high) ** (1.0 - SPECTRUM_EXPONENT)
    single = np.zeros(_BINS)
    single[1 : len(edges) + 1] = -np.diff(tail) / (tail[0] - tail[-1])
    transform = np.fft.rfft(single)
    levels = [0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _SCORES]
    table = np.empty((len(_LAMBDAS), len(_SCORES)), dtype=np.float32)
    for row, mean in zip(table, _LAMBDAS, strict=True):
        density = np.fft.irfft(np.exp(mean * (transform - 1.0)), _BINS)
        # Above the round-off of the transform only: quantiles need a rising function.
        cumulative = np.cumsum(np.maximum(density, 1e-15))
        # n electrons stand for the interval (n - 1/2, n + 1/2).
        row[:] = np.interp(levels, cumulative / cumulative[-1], np.arange(_BINS) + 0.5)
    return table


def _draw_electrons(
    mean: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw the electrons of rows with given mean collisions, any shape."""
    table = _electron_quantiles()
    ratio = math.log(float(_LAMBDAS[1] / _LAMBDAS[0]))
    position = np.log(mean / np.float32(_LAMBDAS[0])) / np.float32(ratio)
    position = np.clip(position, 0.0, len(_LAMBDAS) - 1.001)
    i = position.astype(np.int32)
    score = rng.standard_normal(mean.shape, dtype=np.float32)
    score = np.clip((score - _SCORES[0]) / (_SCORES[1] - _SCORES[0]), 0.0, 511.999)
    j = score.astype(np.int32)
    a, b = position - i, score - j
    flat, at = table.ravel(), i * len(_SCORES) + j
    below = flat[at] + b * (flat[at + 1] - flat[at])
    at += len(_SCORES)
    above = flat[at] + b * (flat[at + 1] - flat[at])
    return np.asarray(below + a * (above - below), dtype=np.float32)


def _draw_charges(
    mean: npt.NDArray[np.float32],
    drift: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Draw the electrons of clusters above threshold, after drift and avalanche."""
    electrons = _draw_electrons(mean, rng)
    low = np.flatnonzero(electrons < THRESHOLD)
    while len(low):
        again = _draw_electrons(mean.ravel()[low], rng)
        electrons.ravel()[low] = again
        low = low[again < THRESHOLD]
    # n electrons survive with probability a and are amplified exponentially: the sum
    # over its mean n a has the variance (2 - a) / (a n).
    a = np.exp(-np.float32(ATTACHMENT) * drift)
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    electrons += noise * np.sqrt(electrons * (2.0 - a) / a)
    return np.clip(electrons, 1.0, SATURATION)


def _respond(
    species: int,
    p: FloatArray,
    eta: FloatArray,
    n_clusters: FloatArray,
    n_tracks: FloatArray,
    *,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the truncated means of all and of the inner clusters, (2, n)."""
    n, shape = len(p), (len(p), N_ROWS)
    path = np.cosh(eta).astype(np.float32)[:, None] * ROW_HEIGHTS.astype(np.float32)
    drift = np.abs(np.sinh(eta))[:, None] * ROW_RADII
    drift = np.clip(DRIFT_LENGTH - drift, 0.0, None).astype(np.float32)
    ionisation = PRIMARIES * bethe_bloch(p / MASSES[species]).astype(np.float32)
    charge = _draw_charges(ionisation[:, None] * path, drift, rng)
    busy = n_tracks[:, None] / OCCUPANCY_UNIT
    overlaid = rng.random(shape, dtype=np.float32) < OVERLAP * busy
    mip = MIP_CHARGE * path[overlaid]
    charge[overlaid] += 0.5 * mip * rng.standard_exponential(len(mip))
    gain = 1.0 - BASELINE * busy
    gain += GAIN_SPREAD * (1.0 + 0.6 * busy) * rng.standard_normal((n, 1))
    signal = charge * (gain * MIP_SIGNAL / MIP_CHARGE) / path
    order = rng.random(shape, dtype=np.float32)
    off = (n_clusters <= N_ROWS - N_INNER) & (rng.random(n) < INNER_OFF)
    order[off, :N_INNER] += 1.0
    last = np.sort(order, axis=1)[np.arange(n), n_clusters.astype(int) - 1]
    signal = np.where(order <= last[:, None], signal, np.inf)
    inner = _truncated_mean(signal[:, :N_INNER])
    inner[~np.isfinite(inner)] = NO_MEASUREMENT
    return np.stack([_truncated_mean(signal), inner])


def _truncated_mean(signal: npt.NDArray[Any]) -> FloatArray:
    """Return the mean of the lowest `TRUNCATION` of each row's finite values, (n,)."""
    kept = np.floor(TRUNCATION * np.isfinite(signal).sum(axis=1)).astype(int)
    total = np.cumsum(np.sort(signal, axis=1), axis=1)
    last = np.maximum(kept, 1) - 1
    return np.asarray(total[np.arange(len(total)), last] / (last + 1))


def _draw_conditions(
    species: str, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Draw momentum, pseudorapidity, clusters and tracks of the event, each (n,)."""
    columns = np.empty((4, 0))
    while columns.shape[1] < n:
        more = 2 * (n - columns.shape[1]) + 100
        eta = rng.uniform(-MAX_ETA, MAX_ETA, more)
        pt = 1e3 * PT_SPECTRA[species] * np.exp(0.8 * rng.standard_normal(more))
        n_tracks = np.ceil(rng.gamma(1.0, 0.2 * OCCUPANCY_UNIT, more))
        # Clusters that overlap completely are lost, in proportion to the occupancy.
        alive = rng.beta(FOUND_SHAPE, 1.0, more)
        alive *= 1.0 - 0.1 * np.minimum(n_tracks / OCCUPANCY_UNIT, 1.0)
        drawn = np.stack(
            [pt * np.cosh(eta), eta, rng.binomial(N_ROWS, alive), n_tracks]
        )
        low, high = P_RANGE
        keep = (drawn[0] >= low) & (drawn[0] <= high) & (drawn[2] >= MIN_CLUSTERS)
        keep &= n_tracks < MAX_TRACKS
        columns = np.concatenate([columns, drawn[:, keep]], axis=1)
    p, eta, *counts = columns[:, :n]
    return p, eta, counts[0].astype(np.int32), counts[1].astype(np.int32)
