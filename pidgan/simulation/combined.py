"""Combined PID variables: RICH, calorimeter and muon system together.

Calorimeter and muon system enter as log-likelihood ratios. A ratio that separates two
classes by d standard deviations is itself normal with mean +-d^2/2 and spread d; that
is all the simulation of these detectors there is. ProbNN-like variables are a softmax
of the combined log-likelihoods times the probability of being no ghost.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.errors import nearest
from pidgan.simulation.detector import DATA, HYPOTHESES, PDG_IDS, Detector
from pidgan.simulation.rich import RICH_VARIABLES, SENTINEL, Tracks, simulate_rich

SPECIES = {
    "pi+": 0,
    "pi-": 0,
    "K+": 1,
    "K-": 1,
    "p": 2,
    "p~": 2,
    "mu+": 3,
    "mu-": 3,
    "e+": 4,
    "e-": 4,
}
"""Index into `HYPOTHESES` of each particle name (names of the package `particle`)."""

CHUNK = 8192
"""Tracks at a time: bounds the memory, and their hits fit into a CPU cache."""

HADRON_SEPARATION = 0.9
"""Separation of K (and of p) from pi by everything but the RICH. Effective: chosen with
the detector's constants so that the combined DLLK follows real calibration tables."""

ECAL_SEPARATION = 3.2
"""Separation of electrons from hadrons by E/p in the calorimeter."""

ECAL_MAX_ETA = 4.2
"""Inner edge of the calorimeter, 25 mrad, with a margin for the beam pipe."""

MUON_SEPARATION = 2.5
"""Separation of muons from hadrons that are seen as muons by their hits' residuals."""

NOT_MUON = -4.0
"""Log-likelihood ratio, mean, of tracks without hits in the muon stations."""

MUON_EFFICIENCY = 0.975
"""Muons above `MUON_MIN_P` with hits in the stations: arXiv:1306.0249."""

MUON_MIN_P = 3000.0
"""Momentum in MeV that a muon needs to reach the muon stations: arXiv:1306.0249."""

MUON_ETA_RANGE = (1.85, 4.9)
"""Acceptance of the muon stations."""

PUNCH_THROUGH = 0.006
"""Hadrons that leave hits in the muon stations: arXiv:1306.0249."""

FLIGHT_PATH = 5000.0
"""Path in mm on which a decay in flight makes a hadron a muon in the stations: less
than the 12 m to the calorimeter, as most kinks spoil the track or miss the hits."""

FLIGHT_SCALE = np.array([55.9, 7.5, np.inf, np.inf, np.inf])
"""c tau / m in mm / MeV in the order of `HYPOTHESES` (Particle Data Group, 2024)."""

NETWORK_SHARPNESS = 0.6
"""Factor from log-likelihoods to the networks' logits: they know their noise."""

NETWORK_SEPARATION = 1.0
"""Further separation of each species that only the networks exploit."""

NETWORK_PRIOR = np.array([1.5, 0.0, -0.7, -1.0, -1.5])
"""Logarithm of the species' abundance in training, in the order of `HYPOTHESES`."""

GHOST_LOGIT = (-4.0, 1.5, 0.004)
"""Mean and spread of the logit of ghosts, and its rise per track of the event."""


def respond(
    tracks: Tracks, *, detector: Detector, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Draw all PID variables of tracks, and `isMuon`, chunk by chunk, each (n,)."""
    chunks = []
    for start in range(0, len(tracks.p), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = Tracks(
            species=tracks.species[rows],
            p=tracks.p[rows],
            eta=tracks.eta[rows],
            n_tracks=tracks.n_tracks[rows],
        )
        rich = simulate_rich(chunk, detector=detector, rng=rng)
        chunks.append({**rich, **_combine(chunk, rich, rng)})
    return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}


def simulate_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
) -> dict[str, npt.NDArray[Any]]:
    """Draw the true response of tracks of one species; another seed, another draw.

    Args:
        species: True species, one of `SPECIES`; the charge does not matter.
        p: Momenta, (n,), MeV.
        eta: Pseudorapidities, (n,).
        n_tracks: Tracks of each track's event, (n,).
        seed: Seed of the random generator.

    Returns:
        `RichDLL{k,p,mu,e,bt}`, `PID{K,p,e,mu}` and `ProbNN{k,pi,p,e,mu,ghost}`,
        each (n,); -999 in all five `RichDLL` where the RICH saw nothing.

    Example:
        >>> response = simulate_response("K+", [20e3], [3.0], [100], seed=1)
        >>> response["RichDLLk"].shape
        (1,)
    """
    if species not in SPECIES:
        hint = nearest(species, SPECIES)
        raise ValueError(f"unknown species {species!r}{hint}")
    tracks = Tracks(
        species=np.full(np.shape(p), SPECIES[species]),
        p=np.asarray(p, dtype=np.float64),
        eta=np.asarray(eta, dtype=np.float64),
        n_tracks=np.asarray(n_tracks, dtype=np.float64),
    )
    shapes = {tracks.p.shape, tracks.eta.shape, tracks.n_tracks.shape}
    if len(shapes) != 1 or tracks.p.ndim != 1 or tracks.p.size == 0:
        raise ValueError(
            "p, eta and n_tracks must be one-dimensional, not empty and equally long, "
            f"got shapes {tracks.p.shape}, {tracks.eta.shape}, {tracks.n_tracks.shape}"
        )
    if not (np.all(tracks.p > 0.0) and np.all(tracks.n_tracks >= 0.0)):
        raise ValueError(
            "p must be positive and n_tracks not negative, none may be NaN"
        )
    response = respond(tracks, detector=DATA, rng=np.random.default_rng(seed))
    del response["isMuon"]
    return response


def true_ids(
    species: npt.NDArray[Any], charge: npt.NDArray[Any]
) -> npt.NDArray[np.int32]:
    """Return the PDG identifiers of species with the given charges, (n,)."""
    return np.asarray(PDG_IDS[species] * charge, dtype=np.int32)


def _ratio(
    is_true: npt.NDArray[np.bool_], separation: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw log-likelihood ratios of two classes `separation` apart."""
    noise = rng.standard_normal(len(is_true), dtype=np.float32)
    mean = np.where(is_true, 0.5, -0.5) * separation**2
    return (mean + separation * noise).astype(np.float32)


def _draw_is_muon(tracks: Tracks, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw which tracks leave hits in the muon stations."""
    decayed = -np.expm1(-FLIGHT_PATH / (FLIGHT_SCALE[tracks.species] * tracks.p))
    is_muon = tracks.species == HYPOTHESES.index("mu")
    probability = np.where(is_muon, MUON_EFFICIENCY, PUNCH_THROUGH + decayed)
    low, high = MUON_ETA_RANGE
    inside = (tracks.p > MUON_MIN_P) & (tracks.eta > low) & (tracks.eta < high)
    return np.asarray(inside & (rng.random(len(tracks.p)) < probability))


def _combine(
    tracks: Tracks, rich: dict[str, npt.NDArray[Any]], rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Add calorimeter and muon system to the RICH and form the ProbNN variables."""
    n = len(tracks.p)
    pi, k, p, mu, e = (tracks.species == h for h in range(len(HYPOTHESES)))
    seen = rich[RICH_VARIABLES[0]] != np.float32(SENTINEL)
    dll = {name: np.where(seen, x, np.float32(0.0)) for name, x in rich.items()}
    has_hits = _draw_is_muon(tracks, rng)
    muon = _ratio(mu, MUON_SEPARATION, rng)
    noise = rng.standard_normal(n, dtype=np.float32)
    muon = np.where(has_hits, muon, np.float32(NOT_MUON) + noise)
    ecal = _ratio(e, ECAL_SEPARATION, rng)
    ecal = np.where(tracks.eta < ECAL_MAX_ETA, ecal, np.float32(0.0))
    combined = {
        "PIDK": dll["RichDLLk"] + _ratio(k, HADRON_SEPARATION, rng),
        "PIDp": dll["RichDLLp"] + _ratio(p, HADRON_SEPARATION, rng),
        "PIDe": dll["RichDLLe"] + ecal,
        "PIDmu": dll["RichDLLmu"] + muon,
    }
    likelihoods = [np.zeros(n, dtype=np.float32)]
    likelihoods += [combined[name] for name in ("PIDK", "PIDp", "PIDmu", "PIDe")]
    logits = NETWORK_SHARPNESS * np.stack(likelihoods)
    for h, is_true in enumerate((pi, k, p, mu, e)):
        logits[h] += NETWORK_PRIOR[h] + _ratio(is_true, NETWORK_SEPARATION, rng)
    logits -= logits.max(axis=0)
    probability = np.exp(logits)
    mean, spread, rise = GHOST_LOGIT
    ghost = mean + spread * rng.standard_normal(n) + rise * tracks.n_tracks
    ghost = 1.0 / (1.0 + np.exp(-ghost))
    probability *= (1.0 - ghost) / probability.sum(axis=0)
    networks = dict(zip(HYPOTHESES, probability, strict=True))
    return {
        **combined,
        **{
            f"ProbNN{h}": x.astype(np.float32)
            for h, x in {**networks, "ghost": ghost}.items()
        },
        "isMuon": has_hits,
    }
