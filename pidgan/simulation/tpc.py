"""Ionisation of tracks in a time projection chamber, cluster by cluster.

Every pad row collects a cluster of electrons: primary collisions are Poisson
distributed with the mean of Bethe and Bloch, and each frees electrons with the 1/E^2.2
spectrum of delta rays. Losses, drift, gain, saturation and other tracks act on the
clusters. The PID variables are the mean of the lowest clusters, and its distance from
the one expected for a hypothesis. Gas, pad rows and constants of the ionisation are
those of ALICE and its simulation (Ne/CO2, 159 rows: arXiv:1001.1950).
"""

import math
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, FloatArray, IntArray
from pidgan.simulation import tracks
from pidgan.simulation.detector import MASSES

TPC_TREE = "TPC/DecayTree"  # name of the tree that `simulate_tpc` makes

# Species to choose from; an antiparticle responds like its particle.
TPC_SPECIES = ("e+", "mu+", "pi+", "K+", "p")
NO_MEASUREMENT = -999.0  # value of `TPC_dEdxInner` for tracks without inner clusters

# Radial length of each pad row in mm, inner chamber first: arXiv:1001.1950.
ROW_HEIGHTS = np.repeat([7.5, 10.0, 15.0], [63, 64, 32])
N_ROWS = len(ROW_HEIGHTS)
N_INNER = 63  # number of pad rows of the inner chamber

_GAPS = np.where(np.arange(N_ROWS) < N_INNER, 848.5, 1346.0 - ROW_HEIGHTS[:63].sum())
ROW_RADII = _GAPS + np.cumsum(ROW_HEIGHTS) - 0.5 * ROW_HEIGHTS  # middle, mm
DRIFT_LENGTH = 2500.0  # length from the central electrode to the pads, mm

# Constants P1 ... P5 of `bethe_bloch` in ALICE's simulation (AliRoot, TPC).
BETHE_BLOCH = (0.76176e-1, 10.632, 0.13279e-4, 1.8631, 1.9479)
PRIMARIES = 1.435  # primary collisions of a MIP per mm (AliRoot, AliTPCv2)

# First ionisation potential of Ne and cut-off, eV (AliRoot, AliTPCv2). Electrons above
# the cut-off leave the row as separate tracks.
COLLISION_ENERGIES = (20.77, 10e3)
SPECTRUM_EXPONENT = 2.2  # energies of primary collisions (AliRoot, AliTPCv2)
PAIR_ENERGY = 35.97  # energy to free an electron, eV (AliRoot, AliTPCv2)

# Smallest number of electrons of a cluster that survives zero suppression. Chosen:
# about a fifth of the mean of a minimum-ionising particle, so that few are lost.
THRESHOLD = 12.0
SATURATION = 1000.0  # electrons that fill the range of the converters. Chosen.
ATTACHMENT = 0.05 / DRIFT_LENGTH  # share of electrons lost in 1 mm of drift. Chosen.

# Spread of the calibrated gain of a track in an empty event; it is 60 % larger at
# `OCCUPANCY_UNIT`. Chosen for the resolution of 5.2 % of isolated tracks and of 6.5 %
# in central Pb-Pb collisions: arXiv:1402.4476.
GAIN_SPREAD = 0.025
OCCUPANCY_UNIT = 10_000.0  # tracks to which `OVERLAP` and `BASELINE` refer

# Share of clusters with charge from another track, on average half of the charge of a
# minimum-ionising particle. Chosen.
OVERLAP = 0.6
BASELINE = 0.19  # relative signal lost to the shifted baseline. Chosen.
TRUNCATION = 0.6  # share of the clusters, the lowest ones, in the mean: arXiv:1402.4476
MIP_SIGNAL = 50.0  # truncated mean of a minimum-ionising particle: ALICE's convention
MIP_CHARGE = 2.23  # truncated mean in this simulation, electrons per mm

# Coefficients c_k of ln(expected / MIP) = sum c_k ln^k(f / f_min), from a fit to
# simulated tracks of all species with 140 clusters in events with 500 tracks.
EXPECTED = (9e-4, 0.935, 0.431, -0.312, 0.0739)
# Constants a and b of the expected relative resolution, sqrt(a^2 + b^2 / nClusters),
# from a fit to simulated minimum-ionising particles.
RESOLUTION = (0.027, 0.55)
MIN_CLUSTERS = 70  # smallest number of clusters, as in ALICE's analyses

# Share of tracks through a switched-off inner chamber, among tracks with no more
# clusters than the outer chamber has rows.
INNER_OFF = 0.05
FOUND_SHAPE = 9.0  # a of the distribution Beta(a, 1) of the share of rows found
P_RANGE = (300.0, 20e3)  # smallest and largest momentum in the sample, MeV
MAX_ETA = 0.9  # largest |eta| of tracks that reach all pad rows
MAX_TRACKS = 10_000  # number of tracks that every event stays below

# Median transverse momentum of each species, GeV; the spread of ln pT is 0.8.
PT_SPECTRA = {"e+": 0.7, "mu+": 0.9, "pi+": 0.8, "K+": 1.0, "p": 1.2}
CHUNK = 4096  # number of tracks at a time, whose clusters fit into a CPU cache

_LAMBDAS = np.geomspace(2.0, 1000.0, 96)
_SCORES = np.linspace(-5.0, 5.0, 513)
_BINS = 8192


def bethe_bloch(beta_gamma: npt.ArrayLike) -> FloatArray:
    """Return the mean ionisation at p / m relative to the minimum.

    It is f(bg) = P1 / beta^P4 (P2 - beta^P4 - ln(P3 + 1 / bg^P5)) over its minimum:
    the parametrisation of ALEPH and ALICE (arXiv:1402.4476, Eq. 5; W. Blum, W. Riegler,
    L. Rolandi, Particle Detection with Drift Chambers, 2nd ed., Sec. 10) of the curves
    of W. Allison and J. Cobb, Ann. Rev. Nucl. Part. Sci. 30 (1980) 253.
    """
    return np.asarray(_aleph(np.asarray(beta_gamma, dtype=np.float64)) / _minimum())


@checked
def expected_dedx(p: npt.ArrayLike, species: str) -> FloatArray:
    """Return the expected truncated mean of a species, in units of `MIP_SIGNAL` / 50.

    Args:
        p: Momenta (n,), MeV.
        species: Name of the species, one of `SPECIES`.
    """
    ratio = np.log(bethe_bloch(np.asarray(p) / MASSES[_index(species)]))
    powers = [c * ratio**k for k, c in enumerate(EXPECTED)]
    return np.asarray(MIP_SIGNAL * np.exp(np.sum(powers, axis=0)))


@checked
def n_sigma(
    dedx: npt.ArrayLike, p: npt.ArrayLike, n_clusters: npt.ArrayLike, *, species: str
) -> FloatArray:
    """Return (dedx - expected) / (expected resolution) for a hypothesis.

    The expectation depends on the momentum and on the number of clusters, but neither
    on the angle nor on the occupancy, like the simpler one of ALICE (arXiv:1402.4476,
    Sec. 7.2). The values of two hypotheses are functions of each other at given
    conditions.

    Args:
        dedx: Truncated means (n,).
        p: Momenta (n,), MeV.
        n_clusters: Number of clusters (n,) of each track.
        species: Hypothesis, one of `SPECIES`.

    Example:
        >>> signal = expected_dedx([1000.0], "K+")
        >>> n_sigma(signal, [1000.0], [140], species="K+")
        array([0.])
    """
    expected, a, b = expected_dedx(p, species), *RESOLUTION
    found, n = (np.asarray(v, dtype=np.float64) for v in (dedx, n_clusters))
    try:
        np.broadcast_shapes(found.shape, expected.shape, n.shape)
    except ValueError:
        raise ValueError(
            f"dedx, p and n_clusters have shapes {found.shape}, {expected.shape} and "
            f"{n.shape}, expected equal ones"
        ) from None
    width = np.sqrt(a**2 + b**2 / n)
    return np.asarray((found - expected) / (width * expected))


@checked
def simulate_tpc_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_clusters: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
) -> dict[str, FloatArray]:
    """Draw the true response to tracks of one species; each seed is another draw.

    Args:
        species: True species, one of `SPECIES`; the charge does not matter.
        p: Momenta (n,), MeV.
        eta: Pseudorapidities (n,), within +-`MAX_ETA`.
        n_clusters: Number of clusters (n,) of each track, 1 ... 159.
        n_tracks: Number of tracks (n,) in the event of each track.
        seed: Seed of the random generator.

    Returns:
        Values (n,) of `TPC_dEdx` and `TPC_dEdxInner`, the truncated means of all and of
        the inner clusters (`NO_MEASUREMENT` without inner ones), and of
        `TPC_NSigma{e,mu,pi,k,p}`.

    Raises:
        ValueError: The species is unknown, lengths differ or a value is impossible.

    Example:
        >>> response = simulate_tpc_response("K+", [1e3], [0.3], [140], [100], seed=1)
        >>> response["TPC_dEdx"].shape
        (1,)
    """
    index = _index(species)
    columns = tracks.checked_columns(
        {
            "p": (p, 0.0, np.inf),
            "eta": (eta, -MAX_ETA, MAX_ETA),
            "n_clusters": (n_clusters, 1, N_ROWS),
            "n_tracks": (n_tracks, 0.0, np.inf),
        }
    )
    rng = np.random.default_rng(seed)
    result = tracks.in_chunks(partial(_respond, index, rng=rng), columns, size=CHUNK)
    for name, hypothesis in zip(("e", "mu", "pi", "k", "p"), TPC_SPECIES, strict=True):
        result[f"TPC_NSigma{name}"] = n_sigma(
            result["TPC_dEdx"], columns[0], columns[2], species=hypothesis
        )
    return {name: value.astype(np.float32) for name, value in result.items()}


@checked
def simulate_tpc(
    species: str, n: int, *, seed: int = 1
) -> dict[str, dict[str, AnyArray]]:
    """Simulate a calibration sample of n tracks of one species, without background.

    Args:
        species: True species, one of `TPC_SPECIES`; half of the tracks are
            antiparticles.
        n: Number of tracks.
        seed: Seed of the random generator.

    Returns:
        Branches of the tree `TPC_TREE`: conditions, PID variables of
        `simulate_tpc_response` with the prefix `probe_`, charge and `probe_TRUEID`.

    Raises:
        ValueError: The species is unknown, or there are no tracks.

    Example:
        >>> trees = simulate_tpc("K+", 100, seed=1)
        >>> len(trees[TPC_TREE]["probe_TPC_NSigmak"])
        100
    """
    tracks.check_species(species, TPC_SPECIES)
    rng = np.random.default_rng([seed, TPC_SPECIES.index(species)])
    p, eta, n_clusters, n_tracks = _draw_conditions(species, n, rng)
    charge = tracks.draw_charges(n, rng=rng)
    response = simulate_tpc_response(
        species, p, eta, n_clusters, n_tracks, seed=int(rng.integers(2**63))
    )
    branches = {
        **tracks.probe_branches(p, eta, charge),
        "probe_TPC_nClusters": n_clusters,
        "nTracks": n_tracks,
        **{f"probe_{name}": value for name, value in response.items()},
        "probe_TRUEID": tracks.true_ids(_index(species), charge),
    }
    return {TPC_TREE: branches}


def _index(species: str) -> int:
    tracks.check_species(species, tuple(tracks.SPECIES))
    return tracks.SPECIES[species]


def _aleph(bg: FloatArray) -> FloatArray:
    """Return the parametrisation in its own unit."""
    p1, p2, p3, p4, p5 = BETHE_BLOCH
    beta = (bg / np.sqrt(1.0 + bg**2)) ** p4
    return np.asarray(p1 / beta * (p2 - beta - np.log(p3 + bg**-p5)))


@cache
def _minimum() -> float:
    return float(_aleph(np.geomspace(2.0, 6.0, 4001)).min())


@cache
def _electron_quantiles() -> FloatArray:
    """Tabulate the electrons of a row by mean collisions and normal score, (96, 513).

    The distribution is a compound Poisson one. Its characteristic function is
    exp(lambda (s - 1)) with the transform s of the spectrum of one collision.
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
        # Values above the rounding of the transform: quantiles need a rising function.
        cumulative = np.cumsum(np.maximum(density, 1e-15))
        # A number n stands for the interval (n - 1/2, n + 1/2).
        row[:] = np.interp(levels, cumulative / cumulative[-1], np.arange(_BINS) + 0.5)
    return table


def _draw_electrons(mean: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw electrons for mean numbers of collisions, any shape."""
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
    mean: FloatArray, drift: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Draw electrons of clusters above threshold, after drift and avalanche."""
    electrons = _draw_electrons(mean, rng)
    low = np.flatnonzero(electrons < THRESHOLD)
    while len(low):
        again = _draw_electrons(mean.ravel()[low], rng)
        electrons.ravel()[low] = again
        low = low[again < THRESHOLD]
    # Electrons survive with probability a and are amplified exponentially. The sum for
    # n electrons, divided by its mean n a, has the variance (2 - a) / (a n).
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
) -> dict[str, AnyArray]:
    """Return the truncated means of all and of the inner clusters, (n,) each."""
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
    return {"TPC_dEdx": _truncated_mean(signal), "TPC_dEdxInner": inner}


def _truncated_mean(signal: AnyArray) -> FloatArray:
    """Return the mean (n,) of the share `TRUNCATION` of lowest finite values."""
    kept = np.floor(TRUNCATION * np.isfinite(signal).sum(axis=1)).astype(int)
    total = np.cumsum(np.sort(signal, axis=1), axis=1)
    last = np.maximum(kept, 1) - 1
    return np.asarray(total[np.arange(len(total)), last] / (last + 1))


def _draw_conditions(
    species: str, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Draw momentum, pseudorapidity, clusters and tracks of the event, (n,) each."""
    columns = np.empty((4, 0))
    while columns.shape[1] < n:
        more = 2 * (n - columns.shape[1]) + 100
        eta = rng.uniform(-MAX_ETA, MAX_ETA, more)
        pt = 1e3 * PT_SPECTRA[species] * np.exp(0.8 * rng.standard_normal(more))
        n_tracks = np.ceil(rng.gamma(1.0, 0.2 * OCCUPANCY_UNIT, more))
        # Overlapping clusters are lost in proportion to the occupancy.
        alive = rng.beta(FOUND_SHAPE, 1.0, more)
        alive *= 1.0 - 0.1 * np.minimum(n_tracks / OCCUPANCY_UNIT, 1.0)
        p, n_clusters = pt * np.cosh(eta), rng.binomial(N_ROWS, alive)
        keep = (p >= P_RANGE[0]) & (p <= P_RANGE[1]) & (n_clusters >= MIN_CLUSTERS)
        keep &= n_tracks < MAX_TRACKS
        drawn = np.stack([p, eta, n_clusters, n_tracks])
        columns = np.concatenate([columns, drawn[:, keep]], axis=1)
    p, eta, *counts = columns[:, :n]
    return p, eta, counts[0].astype(np.int32), counts[1].astype(np.int32)
