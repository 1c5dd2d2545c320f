"""PID variables of a RICH detector with a calorimeter and a muon system behind it.

Photons of the true particle and background hits are drawn as Cherenkov angles for every
track and radiator. Each hypothesis h then has the extended likelihood of these hits.
The likelihood and the DLLs are those of R. Forty and O. Schneider, LHCb/98-040 (RICH
pattern recognition), reduced to one track: LHCb maximises the same sum over all pixels
and all tracks of an event.

Calorimeter and muon system are simulated as log-likelihood ratios only. A ratio that
separates two classes by d standard deviations is itself normal with mean +-d^2/2 and
spread d. ProbNN-like variables are a softmax of the combined log-likelihoods times the
probability that the track is no ghost.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.simulation import tracks as toy
from pidgan.simulation.detector import DATA, HYPOTHESES, MASSES, Detector, Radiator
from pidgan.simulation.tracks import SPECIES, Tracks

RICH_VARIABLES = ("RichDLLk", "RichDLLp", "RichDLLmu", "RichDLLe", "RichDLLbt")
SENTINEL = -999.0  # LHCb's value for a track without RICH information

# Smallest share of the saturated yield above threshold: less than half a
# photo-electron, which LHCb's reconstruction does not look for.
MIN_YIELD_FRACTION = 0.02
MIN_ACCEPTANCE = 0.1  # smallest visible share of a ring with detectable photons
FAILED_FRACTION = 0.004  # share of tracks without a result of the reconstruction
EMPTY_FRACTION = 0.004  # share of tracks without photon candidates: DLLs are 0

# Expected number of hits of a track that do not depend on the occupancy. They are
# uniform in angle in the likelihood, so that b never vanishes.
SCATTERED_HITS = 2.0
OCCUPANCY_UNIT = 180.0  # tracks of the event to which `background` refers
WEAK_SHAPE = 20.0  # shape of the gamma distribution of the photons of a lost ring

# c tau in mm in the order of `HYPOTHESES`; infinite where decays play no role.
LIFETIMES = np.array([7804.5, 3711.0, np.inf, np.inf, np.inf])

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


@dataclass(frozen=True, kw_only=True)
class Rings:
    """Properties of tracks (n,) from which their photons are drawn.

    Attributes:
        mass: Mass of the particle in the radiators, MeV.
        p: Its momentum, MeV.
        scale: Factor of the photon yield.
        shift: Error of the ring radius that all photons share, rad.
        decayed: Whether the particle decayed to a muon before the radiators.
        weak: Whether most of the ring is lost.
        worse: Whether the direction of the track is worse than usual.
    """

    mass: AnyArray
    p: AnyArray
    scale: AnyArray
    shift: AnyArray
    decayed: BoolArray
    weak: BoolArray
    worse: BoolArray

    def take(self, rows: Any) -> "Rings":
        """Return the rings of some of the tracks."""
        return Rings(**{name: values[rows] for name, values in vars(self).items()})


def draw_rings(tracks: Tracks, detector: Detector, rng: np.random.Generator) -> Rings:
    """Draw decays in flight, lost rings and the errors common to all photons."""
    n = len(tracks.p)
    mass = MASSES[tracks.species]
    flight = tracks.p / mass * LIFETIMES[tracks.species]
    decayed = rng.random(n) < detector.decay_length / flight
    muon_mass = MASSES[HYPOTHESES.index("mu")]
    # Two-body decay to a massless neutrino: E_mu / E uniform from (m_mu / m)^2 to 1.
    share = 1.0 - rng.random(n) * (1.0 - (muon_mass / mass) ** 2)
    scale = np.exp(detector.yield_spread * rng.standard_normal(n))
    busy = 0.5 + 0.5 * tracks.n_tracks / OCCUPANCY_UNIT
    weak = rng.random(n) < detector.weak_fraction * busy
    kept = rng.gamma(WEAK_SHAPE, detector.weak_yield / WEAK_SHAPE, n)
    scale[weak] *= kept[weak]
    worse = rng.random(n) < detector.worse_fraction
    angle = np.where(worse, detector.track_angles[1], detector.track_angles[0])
    width = np.hypot(angle, detector.scattering / tracks.p)
    return Rings(
        mass=np.where(decayed, muon_mass, mass),
        p=np.where(decayed, tracks.p * share, tracks.p),
        scale=scale,
        shift=detector.index_offset + width * rng.standard_normal(n),
        decayed=decayed,
        weak=weak,
        worse=worse,
    )


def _draw_hits(
    rings: Rings,
    mean: AnyArray,
    expected: AnyArray,
    width: FloatArray,
    *,
    radiator: Radiator,
    detector: Detector,
    rng: np.random.Generator,
) -> tuple[AnyArray, AnyArray]:
    """Draw the angles of all hits, flat by track, and how many each track has."""
    fraction = radiator.yield_fraction(rings.p, rings.mass)
    n_photons = rng.poisson(mean * fraction * rings.scale)
    shape = detector.density_spread**-2.0
    density = rng.gamma(shape, 1.0 / shape, len(mean))
    n_background = rng.poisson(expected * density + SCATTERED_HITS)
    total = int(n_photons.sum())
    photons = rng.standard_normal(total, dtype=np.float32)
    tail = rng.random(total, dtype=np.float32) < detector.photon_tail[0]
    photons[tail] *= np.float32(detector.photon_tail[1])
    photons *= np.repeat(width, n_photons)
    angle = (radiator.angle(fraction) + rings.shift).astype(np.float32)
    photons += np.repeat(angle, n_photons)
    # Hits of other tracks are uniform in the detector plane: density ~ theta.
    background = np.sqrt(rng.random(int(n_background.sum()), dtype=np.float32))
    background *= np.float32(radiator.window)
    kind = np.tile(np.array([True, False]), len(mean))
    is_photon = np.repeat(kind, np.stack([n_photons, n_background], axis=1).ravel())
    hits = np.empty(len(is_photon), dtype=np.float32)
    hits[is_photon] = np.abs(photons)
    hits[~is_photon] = background
    return hits, n_photons + n_background


def _sum_per_track(values: AnyArray, starts: AnyArray, counts: AnyArray) -> AnyArray:
    """Add up flat values by track; reduceat alone repeats a value for empty tracks."""
    padded = np.append(values, np.float32(0.0))
    return np.where(counts > 0, np.add.reduceat(padded, starts), np.float32(0.0))


def _log_likelihoods(
    tracks: Tracks,
    rings: Rings,
    acceptance: AnyArray,
    *,
    radiator: Radiator,
    detector: Detector,
    rng: np.random.Generator,
) -> AnyArray:
    """Return ln L_h - ln L_background of one radiator, (5, n), for used tracks.

    With mu_h expected photons of density f_h, and background density b, it is -mu_h +
    sum_hits ln(1 + mu_h f_h / b), exactly 0 for a hypothesis without photons: DLLs tie
    for this reason. Tracks are ordered by falling momentum.
    """
    mean = radiator.photons * acceptance
    # Hits of other tracks in the window, and the single-photon resolution, rad.
    expected = np.asarray(radiator.background * tracks.n_tracks / OCCUPANCY_UNIT)
    width = np.hypot(radiator.resolution, detector.scattering / tracks.p)
    width = np.asarray(width, dtype=np.float32)
    hits, counts = _draw_hits(
        rings, mean, expected, width, radiator=radiator, detector=detector, rng=rng
    )
    starts = np.concatenate([[0], np.cumsum(counts)])
    slope = (2.0 * expected / radiator.window**2).astype(np.float32)
    inverse_b = np.repeat(slope, counts) * hits
    inverse_b += np.float32(SCATTERED_HITS / radiator.window)
    np.reciprocal(inverse_b, out=inverse_b)
    scaled = hits * np.repeat(np.float32(1.0) / width, counts)
    result = np.zeros((len(HYPOTHESES), len(mean)), dtype=np.float32)
    for h, mass in enumerate(MASSES):
        fraction = radiator.yield_fraction(tracks.p, float(mass))
        k = int(np.count_nonzero(fraction > MIN_YIELD_FRACTION))
        if k == 0:
            continue
        hit, count = slice(0, starts[k]), counts[:k]
        mu = (mean[:k] * fraction[:k]).astype(np.float32)
        centre = (radiator.angle(fraction[:k]) / width[:k]).astype(np.float32)
        peak = mu / (np.float32(np.sqrt(2.0 * np.pi)) * width[:k])
        ratio = scaled[hit] - np.repeat(centre, count)
        ratio *= ratio
        ratio *= np.float32(-0.5)
        np.exp(ratio, out=ratio)
        ratio *= np.repeat(peak, count)
        ratio *= inverse_b[hit]
        ratio += np.float32(1.0)
        np.log(ratio, out=ratio)
        result[h, :k] = _sum_per_track(ratio, starts[:k], count) - mu
    return result


def simulate_rich(
    tracks: Tracks,
    *,
    detector: Detector,
    rng: np.random.Generator,
    rings: Rings | None = None,
) -> dict[str, FloatArray]:
    """Draw the five DLLs of tracks, (n,) each, or `SENTINEL` in all of them.

    Rings are drawn too, unless they are given.

    DLL_h = ln L_h - ln L_pi, summed over the radiators that the track crosses; "bt" is
    the hypothesis of a particle below every threshold, ln L_background.
    """
    order = np.argsort(-tracks.p, kind="stable")
    ordered = tracks.take(order)
    n = len(order)
    rings = rings.take(order) if rings else draw_rings(ordered, detector, rng)
    theta = 2.0 * np.arctan(np.exp(-ordered.eta))
    total = np.zeros((len(HYPOTHESES), n), dtype=np.float32)
    any_used = np.zeros(n, dtype=bool)
    for radiator in (detector.rich1, detector.rich2):
        acceptance = radiator.acceptance(theta)
        # Which of the soft tracks the dipole bends out depends on their azimuth.
        bent_out = (radiator.traverse_momentum / ordered.p) ** 4
        reached = rng.random(n) * (1.0 + bent_out) < 1.0
        any_used |= (acceptance > 0.0) & reached
        used = np.flatnonzero((acceptance > MIN_ACCEPTANCE) & reached)
        total[:, used] += _log_likelihoods(
            ordered.take(used),
            rings.take(used),
            acceptance[used],
            radiator=radiator,
            detector=detector,
            rng=rng,
        )
    total[:, rng.random(n) < EMPTY_FRACTION] = 0.0
    missing = ~any_used | (rng.random(n) < FAILED_FRACTION)
    background = np.zeros(n, dtype=np.float32)
    result = {}
    for name, value in zip(RICH_VARIABLES, [*total[1:], background], strict=True):
        result[name] = np.empty(n, dtype=np.float32)
        result[name][order] = np.where(missing, np.float32(SENTINEL), value - total[0])
    return result


def respond(
    tracks: Tracks, *, detector: Detector, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Draw all PID variables of tracks and `isMuon`, each (n,), chunk by chunk."""

    def respond_to(*columns: AnyArray) -> dict[str, AnyArray]:
        chunk = Tracks(*columns)
        rich = simulate_rich(chunk, detector=detector, rng=rng)
        return {**rich, **_combine(chunk, rich, rng)}

    return toy.in_chunks(respond_to, list(vars(tracks).values()), size=CHUNK)


@checked
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


def draw_ratio(
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
    muon = draw_ratio(mu, MUON_SEPARATION, rng)
    noise = rng.standard_normal(n, dtype=np.float32)
    muon = np.where(has_hits, muon, np.float32(NOT_MUON) + noise)
    ecal = draw_ratio(e, ECAL_SEPARATION, rng)
    ecal = np.where(tracks.eta < ECAL_MAX_ETA, ecal, np.float32(0.0))
    combined = {
        "PIDK": dll["RichDLLk"] + draw_ratio(k, HADRON_SEPARATION, rng),
        "PIDp": dll["RichDLLp"] + draw_ratio(p, HADRON_SEPARATION, rng),
        "PIDe": dll["RichDLLe"] + ecal,
        "PIDmu": dll["RichDLLmu"] + muon,
    }
    order = [combined[name] for name in ("PIDK", "PIDp", "PIDmu", "PIDe")]
    logits = NETWORK_SHARPNESS * np.stack([np.zeros(n, dtype=np.float32), *order])
    for h, is_true in enumerate((pi, k, p, mu, e)):
        logits[h] += NETWORK_PRIOR[h] + draw_ratio(is_true, NETWORK_SEPARATION, rng)
    logits -= logits.max(axis=0)
    probability = np.exp(logits)
    mean, spread, rise = GHOST_LOGIT
    ghost = mean + spread * rng.standard_normal(n) + rise * tracks.n_tracks
    ghost = 1.0 / (1.0 + np.exp(-ghost))
    probability *= (1.0 - ghost) / probability.sum(axis=0)
    networks = zip((*HYPOTHESES, "ghost"), [*probability, ghost], strict=True)
    prob_nn = {f"ProbNN{h}": x.astype(np.float32) for h, x in networks}
    return {**combined, **prob_nn, "isMuon": has_hits}
