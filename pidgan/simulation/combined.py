"""Combined PID variables: RICH, calorimeter and muon system together.

Calorimeter and muon system are simulated as log-likelihood ratios only. A ratio that
separates two classes by d standard deviations is itself normal with mean +-d^2/2 and
spread d. ProbNN-like variables are a softmax of the combined log-likelihoods times the
probability that the track is no ghost.
"""

import numpy as np
import numpy.typing as npt

from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.simulation import tracks as toy
from pidgan.simulation.detector import DATA, HYPOTHESES, Detector
from pidgan.simulation.rich import RICH_VARIABLES, SENTINEL, simulate_rich
from pidgan.simulation.tracks import SPECIES, Tracks

MIN_P = 1.0  # smallest momentum of a simulated track, MeV
CHUNK = 8192  # number of tracks at a time, whose hits fit into a CPU cache

# Separation of kaons and protons from pions without the RICH: an effective number that
# makes the combined DLLK follow real calibration tables.
HADRON_SEPARATION = 0.9
ECAL_SEPARATION = 3.2  # separation of electrons from hadrons by E/p in the calorimeter
ECAL_MAX_ETA = 4.2  # inner edge of the calorimeter, 25 mrad, with a margin
MUON_SEPARATION = 2.5  # separation of muons from hadrons with hits in the muon stations
NOT_MUON = -4.0  # mean log-likelihood ratio of tracks without hits in the muon stations
MUON_EFFICIENCY = 0.975  # muons with hits in the stations: arXiv:1306.0249
MUON_MIN_P = 3000.0  # MeV, to reach the muon stations: arXiv:1306.0249
MUON_ETA_RANGE = (1.85, 4.9)  # acceptance of the muon stations
PUNCH_THROUGH = 0.006  # hadrons with hits in the stations: arXiv:1306.0249

# Length of the path, mm, on which a hadron may decay to a muon with hits in the
# stations. It is less than the 12 m to the calorimeter, as most kinks spoil the track.
FLIGHT_PATH = 5000.0
# c tau / m in mm / MeV in the order of `HYPOTHESES` (Particle Data Group, 2024).
FLIGHT_SCALE = np.array([55.9, 7.5, np.inf, np.inf, np.inf])
NETWORK_SHARPNESS = 0.6  # factor from log-likelihoods to the logits of the networks
NETWORK_SEPARATION = 1.0  # further separation that only the networks see

# Logarithm of the abundance of each species in training, as in `HYPOTHESES`.
NETWORK_PRIOR = np.array([1.5, 0.0, -0.7, -1.0, -1.5])
# Mean and spread of the logit of ghosts, and its rise with each track of the event.
GHOST_LOGIT = (-4.0, 1.5, 0.004)


def respond(
    tracks: Tracks, *, detector: Detector, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Draw all PID variables of tracks and `isMuon`, each (n,), chunk by chunk."""

    def respond_to(*columns: AnyArray) -> dict[str, AnyArray]:
        chunk = Tracks(*columns)
        rich = simulate_rich(chunk, detector=detector, rng=rng)
        return {**rich, **_combine(chunk, rich, rng)}

    return toy.in_chunks(respond_to, list(vars(tracks).values()), size=CHUNK)


def simulate_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
) -> dict[str, AnyArray]:
    """Draw the true response to tracks of one species; each seed is another draw.

    Args:
        species: True species, one of `SPECIES`; the charge does not matter.
        p: Momenta (n,), MeV.
        eta: Pseudorapidities (n,).
        n_tracks: Number of tracks (n,) in the event of each track.
        seed: Seed of the random generator.

    Returns:
        Values (n,) of `RichDLL{k,p,mu,e,bt}`, `PID{K,p,e,mu}` and
        `ProbNN{k,pi,p,e,mu,ghost}`. All five `RichDLL` are -999 where the RICH saw
        nothing.

    Raises:
        ValueError: The species is unknown, lengths differ or a value is impossible.

    Example:
        >>> response = simulate_response("K+", [20e3], [3.0], [100], seed=1)
        >>> response["RichDLLk"].shape
        (1,)
    """
    toy.check_species(species, tuple(SPECIES))
    columns = toy.checked_columns(
        {
            "p": (p, MIN_P, np.inf),
            "eta": (eta, -np.inf, np.inf),
            "n_tracks": (n_tracks, 0.0, np.inf),
        }
    )
    index = np.full(len(columns[0]), SPECIES[species])
    tracks = Tracks(index, *columns)
    response = respond(tracks, detector=DATA, rng=np.random.default_rng(seed))
    del response["isMuon"]
    return response


def _ratio(
    is_true: BoolArray, separation: float, rng: np.random.Generator
) -> FloatArray:
    """Draw log-likelihood ratios of two classes with a separation."""
    noise = rng.standard_normal(len(is_true), dtype=np.float32)
    mean = np.where(is_true, 0.5, -0.5) * separation**2
    return (mean + separation * noise).astype(np.float32)


def _draw_is_muon(tracks: Tracks, rng: np.random.Generator) -> BoolArray:
    """Draw which tracks leave hits in the muon stations."""
    decayed = -np.expm1(-FLIGHT_PATH / (FLIGHT_SCALE[tracks.species] * tracks.p))
    is_muon = tracks.species == HYPOTHESES.index("mu")
    probability = np.where(is_muon, MUON_EFFICIENCY, PUNCH_THROUGH + decayed)
    low, high = MUON_ETA_RANGE
    inside = (tracks.p > MUON_MIN_P) & (tracks.eta > low) & (tracks.eta < high)
    return np.asarray(inside & (rng.random(len(tracks.p)) < probability))


def _combine(
    tracks: Tracks, rich: dict[str, AnyArray], rng: np.random.Generator
) -> dict[str, AnyArray]:
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
    order = [combined[name] for name in ("PIDK", "PIDp", "PIDmu", "PIDe")]
    logits = NETWORK_SHARPNESS * np.stack([np.zeros(n, dtype=np.float32), *order])
    for h, is_true in enumerate((pi, k, p, mu, e)):
        logits[h] += NETWORK_PRIOR[h] + _ratio(is_true, NETWORK_SEPARATION, rng)
    logits -= logits.max(axis=0)
    probability = np.exp(logits)
    mean, spread, rise = GHOST_LOGIT
    ghost = mean + spread * rng.standard_normal(n) + rise * tracks.n_tracks
    ghost = 1.0 / (1.0 + np.exp(-ghost))
    probability *= (1.0 - ghost) / probability.sum(axis=0)
    networks = zip((*HYPOTHESES, "ghost"), [*probability, ghost], strict=True)
    prob_nn = {f"ProbNN{h}": x.astype(np.float32) for h, x in networks}
    return {**combined, **prob_nn, "isMuon": has_hits}
