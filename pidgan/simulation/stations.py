"""Muon stations behind the calorimeters: acceptance, hits, isMuon, muon likelihood.

Four stations M2 to M5 stand between absorbers of iron. A muon that has the energy to
reach a station leaves a hit there, displaced by multiple scattering. A hadron leaves
hits if it decays in flight, if its shower leaks through, or by accident, where hits of
other tracks lie in the field of interest around its extrapolation. The detector and
`isMuon` are those of LHCb: J. Instrum. 3 (2008) S08005, Sec. 6.3, and F. Archilli et
al., J. Instrum. 8 (2013) P10020 (arXiv:1306.0249); G. Lanfranchi et al.,
LHCb-PUB-2009-013.
"""

from dataclasses import dataclass, replace

import numpy as np

from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.simulation.detector import HYPOTHESES
from pidgan.simulation.flight import Flight, kink_offsets, positions
from pidgan.simulation.tracks import Tracks

NO_MUON = -1000.0  # LHCb's value of the muon likelihood where isMuon is false

STATIONS = (15200.0, 16400.0, 17600.0, 18800.0)  # places of M2, M3, M4 and M5, mm
# Inner and outer edges of the acceptance as slopes in x and in y.
INNER_EDGE, OUTER_EDGE = (0.020, 0.016), (0.306, 0.258)
# Pads of the innermost region, mm in x and y. Each further region doubles both.
PADS = np.array([[6.3, 31.0], [6.7, 34.0], [29.0, 36.0], [31.0, 39.0]])
REGIONS = 4

# Energy that a muon has lost before each station, MeV: 1.6 GeV per metre of iron, and
# the calorimeters. Its relative fluctuation is a choice.
LOSSES = np.array([1700.0, 2700.0, 3800.0, 4900.0])
LOSS_SPREAD = 0.04
# Radiation lengths of the absorber before each station and its end along the beam, mm.
ABSORBERS = np.array([80.0, 45.5, 45.5, 45.5])
ABSORBER_ENDS = np.array([15000.0, 16200.0, 17400.0, 18600.0])
ABSORBER_LENGTHS = np.array([2500.0, 800.0, 800.0, 800.0])
LEAST_MOMENTUM = 300.0  # MeV, below which scattering does not grow further

# Momenta, MeV, between which isMuon asks for M2 and M3; for M2, M3 and one of M4 and
# M5; and above which it asks for all four: arXiv:1306.0249, Table 1.
IS_MUON_MOMENTA = (3000.0, 6000.0, 10000.0)
FIELD_WIDTH = 3.0  # half axes of the field of interest in expected standard deviations
FIELD_PADS = 0.7  # and what is added to them, in pads. Both chosen.

# Interaction lengths before each station.
DEPTHS = np.array([6.7, 11.5, 16.2, 21.0])
# The shower of a hadron reaches depth + a + b ln(1 + p / GeV) + tail, in interaction
# lengths, with an exponential tail. A muon in it may reach further. Chosen so that
# isMuon of protons is that of arXiv:1306.0249.
REACH, REACH_RISE, REACH_TAIL = 1.0, 0.75, 1.0
SHOWER_MUONS, SHOWER_MUON_TAIL = 0.012, 9.0  # at 20 GeV, rising as the square root
LEAK_SPREAD = (45.0, 0.025)  # mm, and rad at 20 GeV, of the hits of a shower

# Hits of other tracks in each station in an event of `OCCUPANCY_UNIT` tracks, whose
# density falls with the squared distance from the beam. Chosen.
OCCUPANCY_UNIT = 180.0
LEAST_RADIUS, LARGEST_RADIUS = 350.0, 5000.0

# The muon likelihood ratio is a - b tanh((ln D2 - c) / d): near the ratio of the
# densities of ln D2 of muons and of protons with isMuon, monotonic, and with bounds.
RATIO_MIDDLE, RATIO_HEIGHT, RATIO_PLACE, RATIO_WIDTH = 0.3, 2.9, 0.35, 1.0


@dataclass(frozen=True, kw_only=True)
class MuonSystem:
    """Constants of the muon stations that differ between data and simulation."""

    efficiency: float  # of a hit in each station
    weak_chamber: float  # the same in M4 at x > 0, far from the beam
    hits: tuple[float, float, float, float]  # hits of other tracks in each station
    scattering: float  # true scattering over the expected one


DATA_STATIONS = MuonSystem(
    efficiency=0.996, weak_chamber=0.95, hits=(42.0, 22.0, 14.0, 16.0), scattering=1.08
)
# An official simulation knows nothing of the weak chamber and has too few hits.
SIMULATED_STATIONS = replace(
    DATA_STATIONS,
    efficiency=0.998,
    weak_chamber=0.998,
    hits=(30.0, 15.0, 9.0, 10.0),
    scattering=1.0,
)


def simulate_stations(
    tracks: Tracks, flight: Flight, *, system: MuonSystem, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Draw InMuonAcc, isMuon and the muon likelihood of tracks, (n,) each."""
    places = np.array([positions(tracks, flight, z) for z in STATIONS])
    in_acceptance = np.logical_and(_inside(places[0], 0), _inside(places[-1], 3))
    offsets, has_hit = _true_hits(tracks, flight, system=system, rng=rng)
    regions = [_region(place, k) for k, place in enumerate(places)]
    has_hit &= rng.random(has_hit.shape) < _efficiencies(places, regions, system)
    variance = _expected_variance(tracks.p)
    squared, found = np.empty(has_hit.shape), np.empty(has_hit.shape, dtype=bool)
    for k in range(len(STATIONS)):
        pads = PADS[k][:, None] * 2.0 ** regions[k]
        width = np.sqrt(variance[k] + pads**2 / 12.0)
        field = FIELD_WIDTH * width + FIELD_PADS * pads
        # A hit is known to its pad.
        seen = np.floor((places[k] + offsets[k]) / pads) * pads + 0.5 * pads - places[k]
        seen = np.where(has_hit[k], seen / field, np.inf)
        accident = _nearest_accident(
            tracks, flight, places[k], field, system.hits[k], rng
        )
        nearer = (accident**2).sum(axis=0) < (seen**2).sum(axis=0)
        nearest = np.where(nearer, accident, seen)
        inside = (nearest**2).sum(axis=0) < 1.0
        scaled = np.where(inside, nearest, 0.0) * field / width
        squared[k] = 0.5 * (scaled**2).sum(axis=0)
        found[k] = inside
    is_muon = in_acceptance & _is_muon(tracks.p, found)
    mean = squared.sum(axis=0) / np.maximum(found.sum(axis=0), 1)
    likelihood = _likelihood_ratio(mean)
    return {
        "InMuonAcc": in_acceptance,
        "isMuon": is_muon,
        "MuonDLL": np.where(is_muon, likelihood, NO_MUON).astype(np.float32),
    }


def _inside(place: AnyArray, station: int) -> BoolArray:
    """Return which places (2, n) are between the edges of a station."""
    slopes = np.abs(place) / STATIONS[station]
    outside = (slopes > np.array(OUTER_EDGE)[:, None]).any(axis=0)
    hole = (slopes < np.array(INNER_EDGE)[:, None]).all(axis=0)
    return np.asarray(~outside & ~hole)


def _region(place: AnyArray, station: int) -> AnyArray:
    """Return the region, 0 to 3, of places (2, n); widths double with each."""
    slopes = np.abs(place) / STATIONS[station] / np.array(INNER_EDGE)[:, None]
    region = np.floor(np.log2(np.maximum(slopes.max(axis=0), 1.0)))
    return np.asarray(np.clip(region, 0, REGIONS - 1), dtype=np.int64)


def _efficiencies(
    places: AnyArray, regions: list[AnyArray], system: MuonSystem
) -> FloatArray:
    """Return the efficiency of a hit in each station, (4, n)."""
    result = np.full((len(STATIONS), places.shape[2]), system.efficiency)
    far = (regions[2] >= REGIONS - 2) & (places[2, 0] > 0.0)
    result[2, far] = system.weak_chamber
    return result


def _scattering_angle(p: AnyArray, absorber: int) -> FloatArray:
    """Return the projected angle behind an absorber (Highland), rad.

    13.6 MeV / p sqrt(t) (1 + 0.038 ln t) for t radiation lengths (Particle Data Group,
    2024, Sec. 34.3), with the momentum in the middle of the absorber.
    """
    t = ABSORBERS[absorber]
    lost = 0.5 * (LOSSES[absorber] + (LOSSES[absorber - 1] if absorber else 0.0))
    momentum = np.maximum(p - lost, LEAST_MOMENTUM)
    factor = 13.6 * np.sqrt(t) * (1.0 + 0.038 * np.log(t))
    return np.asarray(factor / momentum)


def _expected_variance(p: AnyArray) -> FloatArray:
    """Return the expected variance of the offset at each station, (4, n), mm2."""
    result = np.zeros((len(STATIONS), len(p)))
    for k, z in enumerate(STATIONS):
        for j in range(k + 1):
            length, arm = ABSORBER_LENGTHS[j], z - ABSORBER_ENDS[j]
            lever = length**2 / 3.0 + length * arm + arm**2
            result[k] += _scattering_angle(p, j) ** 2 * lever
    return result


def _true_hits(
    tracks: Tracks, flight: Flight, *, system: MuonSystem, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    """Return offsets (4, 2, n), mm, of tracks or showers, and where they arrive."""
    n = len(tracks.p)
    is_muon = (tracks.species == HYPOTHESES.index("mu")) | flight.is_decayed
    p = tracks.p * flight.share
    offsets, arrives = np.zeros((4, 2, n)), np.zeros((4, n), dtype=bool)
    # Position and angle behind a thick absorber: Particle Data Group, Eq. 34.21.
    first, second = rng.standard_normal((2, len(STATIONS), 2, n))
    loss = LOSSES[:, None] * (1.0 + LOSS_SPREAD * rng.standard_normal(n))
    for j in range(len(STATIONS)):
        angle = system.scattering * _scattering_angle(p, j)
        angle = angle * second[j]
        own = system.scattering * _scattering_angle(p, j) * ABSORBER_LENGTHS[j]
        shift = own * first[j] / np.sqrt(12.0) + 0.5 * angle * ABSORBER_LENGTHS[j]
        for k in range(j, len(STATIONS)):
            offsets[k] += shift + angle * (STATIONS[k] - ABSORBER_ENDS[j])
    for k, z in enumerate(STATIONS):
        offsets[k] += np.array(kink_offsets(flight, z))
    arrives[:, is_muon] = (p > loss)[:, is_muon]
    reach = _shower_reach(tracks.p, flight.depth, rng)
    start, slope = rng.standard_normal((2, 2, n))
    slope *= LEAK_SPREAD[1] * np.sqrt(20e3 / tracks.p)
    hadron = ~is_muon & np.isfinite(flight.depth)
    for k, z in enumerate(STATIONS):
        leaked = LEAK_SPREAD[0] * start + slope * (z - ABSORBER_ENDS[0])
        offsets[k] = np.where(is_muon, offsets[k], leaked)
        arrives[k, hadron] = (reach > DEPTHS[k])[hadron]
    return offsets, arrives


def _shower_reach(p: AnyArray, depth: AnyArray, rng: np.random.Generator) -> AnyArray:
    """Return the depth (n,) in interaction lengths that showers reach."""
    tail = REACH_TAIL * rng.standard_exponential(len(p))
    reach = depth + REACH + REACH_RISE * np.log1p(p / 1e3) + tail
    has_muon = rng.random(len(p)) < SHOWER_MUONS * np.sqrt(p / 20e3)
    return reach + has_muon * SHOWER_MUON_TAIL * rng.standard_exponential(len(p))


def _nearest_accident(
    tracks: Tracks,
    flight: Flight,
    place: AnyArray,
    field: AnyArray,
    hits: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the nearest hit of another track, (2, n), in half axes of the field.

    With mu hits expected in an ellipse, the squared distance of the nearest one, in
    half axes, is exponential with mean 1 / mu.
    """
    squared = np.maximum((place**2).sum(axis=0), LEAST_RADIUS**2)
    density = hits / (2.0 * np.pi * np.log(LARGEST_RADIUS / LEAST_RADIUS) * squared)
    density *= flight.density * tracks.n_tracks / OCCUPANCY_UNIT
    expected = np.pi * field[0] * field[1] * density
    radius = np.sqrt(rng.standard_exponential(len(expected)) / expected)
    angle = rng.uniform(-np.pi, np.pi, len(expected))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)])


def _is_muon(p: AnyArray, hit: BoolArray) -> BoolArray:
    """Return which tracks have hits in the stations that their momentum asks for."""
    least, middle, high = IS_MUON_MOMENTA
    two = (p > least) & hit[0] & hit[1]
    three = two & (hit[2] | hit[3])
    four = two & hit[2] & hit[3]
    return np.asarray(np.where(p > high, four, np.where(p > middle, three, two)))


def _likelihood_ratio(mean_squared: AnyArray) -> FloatArray:
    """Return ln L_muon - ln L_hadron for mean squared distances D2 of the hits.

    As in arXiv:1306.0249, D2 is the mean over the stations of the squared distance of
    the nearest hits from the extrapolation, here in units of the expected variance.
    """
    log = np.log(np.maximum(mean_squared, 1e-9))
    step = np.tanh((log - RATIO_PLACE) / RATIO_WIDTH)
    return np.asarray(RATIO_MIDDLE - RATIO_HEIGHT * step)
