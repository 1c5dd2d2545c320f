"""The truth of a track that RICH, calorimeters and muon stations share.

A track has one azimuth, one charge, one decay and one interaction. What each detector
measures follows from them, and so do the correlations between the detectors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.simulation.calorimeter_pid import INTERACTION_LENGTHS
from pidgan.simulation.detector import HYPOTHESES, MASSES, Detector
from pidgan.simulation.rich import FLIGHT_SCALE, Rings
from pidgan.simulation.tracks import Tracks

# Distances from the collision along the beam, mm: LHCb, J. Instrum. 3 (2008) S08005.
MAGNET = 5200.0  # centre of the dipole
TRACKING = (7700.0, 9400.0)  # first and last station behind the magnet
CALORIMETER = 12500.0
KICK = 1260.0  # transverse momentum that the dipole gives, MeV: 4.2 T m

# Branching fractions of decays to a muon and a neutrino (Particle Data Group, 2024), in
# the order of `HYPOTHESES`.
MUON_DECAYS = np.array([1.0, 0.636, 0.0, 0.0, 0.0])
LARGEST_KINK = 3e-3  # rad: a track with a larger one is rarely found. Chosen.
# Interaction lengths of positive and negative hadrons over their mean: K- and p~ have
# larger cross-sections than K+ and p. Chosen near the values at 20 GeV.
CHARGE_EFFECT = np.array([0.0, 0.06, 0.08, 0.0, 0.0])

# chi2 per degree of freedom of the fit of a track: shape of the gamma distribution, and
# what a worse direction, a lost ring and a kink of 1 mrad add to its mean of 1. Chosen.
FIT_SHAPE, WORSE_FIT, WEAK_FIT, KINK_FIT = 14.0, 0.35, 0.5, 0.5
DENSITY_SHAPE = 4.0  # shape of the gamma distribution of the hit density. Chosen.


@dataclass(frozen=True, kw_only=True)
class Flight:
    """What happened to tracks (n,), beside their kinematics.

    Attributes:
        charge: +1 or -1.
        phi: Azimuth at the collision, rad.
        decay: Distance at which a muon takes over, mm; infinite without a decay.
        share: Share of the momentum that this muon has; 1 without a decay.
        kink: Angle of this muon to the track, rad.
        kink_phi: Azimuth of the kink, rad.
        depth: Depth in interaction lengths at which a hadron showers.
        fit: chi2 per degree of freedom of the fit of the track.
        density: Density of hits around the track over the mean of its event.
    """

    charge: AnyArray
    phi: AnyArray
    decay: AnyArray
    share: AnyArray
    kink: AnyArray
    kink_phi: AnyArray
    depth: AnyArray
    fit: AnyArray
    density: AnyArray

    def take(self, rows: Any) -> "Flight":
        """Return the truth of some of the tracks."""
        return Flight(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def is_decayed(self) -> BoolArray:
        """Whether a muon took over."""
        return np.asarray(np.isfinite(self.decay))


def draw_flight(
    tracks: Tracks,
    rings: Rings,
    *,
    charge: AnyArray,
    phi: AnyArray,
    detector: Detector,
    rng: np.random.Generator,
) -> Flight:
    """Draw what happens to tracks behind the RICH detectors that `rings` belong to."""
    n, mass = len(tracks.p), MASSES[tracks.species]
    muon = MASSES[HYPOTHESES.index("mu")]
    # Energy and momentum of the muon at rest in units of the mass of the parent.
    energy = 0.5 * (1.0 + (muon / mass) ** 2)
    momentum = np.maximum(0.5 * (1.0 - (muon / mass) ** 2), 0.0)
    cosine = rng.uniform(-1.0, 1.0, n)
    share = energy + momentum * cosine
    kink = mass * momentum * np.sqrt(1.0 - cosine**2) / (tracks.p * share)
    path = FLIGHT_SCALE[tracks.species] * tracks.p
    decay = detector.decay_length + path * rng.standard_exponential(n)
    found = rng.random(n) < np.exp(-((kink / LARGEST_KINK) ** 2))
    found |= decay > TRACKING[1]
    found &= (decay < CALORIMETER) & (rng.random(n) < MUON_DECAYS[tracks.species])
    found &= ~rings.decayed
    # The fit of a track follows a muon that was there before the magnet.
    kink = np.where(found, kink, 0.0)
    decay = np.where(found, decay, np.where(rings.decayed, 0.0, np.inf))
    share = np.where(found, share, np.where(rings.decayed, rings.p / tracks.p, 1.0))
    lengths = np.array([INTERACTION_LENGTHS.get(name, np.inf) for name in HYPOTHESES])
    depth = lengths[tracks.species] * (1.0 + CHARGE_EFFECT[tracks.species] * charge)
    visible = 1e3 * kink * _seen_kink(decay)
    mean = 1.0 + WORSE_FIT * rings.worse + WEAK_FIT * rings.weak + KINK_FIT * visible
    return Flight(
        charge=charge,
        phi=phi,
        decay=decay,
        share=share,
        kink=kink,
        kink_phi=rng.uniform(-np.pi, np.pi, n),
        depth=depth * rng.standard_exponential(n),
        fit=mean * rng.gamma(FIT_SHAPE, 1.0 / FIT_SHAPE, n),
        density=rng.gamma(DENSITY_SHAPE, 1.0 / DENSITY_SHAPE, n),
    )


def _seen_kink(decay: AnyArray) -> FloatArray:
    """Return the share of the tracking stations that a muon took over before."""
    first, last = TRACKING
    seen = np.clip((last - np.where(np.isfinite(decay), decay, last)), 0.0, last)
    return np.asarray(np.minimum(seen / (last - first), 1.0))


def positions(tracks: Tracks, flight: Flight, z: float) -> tuple[AnyArray, AnyArray]:
    """Return where the extrapolation of tracks meets a plane at z behind the magnet.

    The dipole bends horizontally: x = z px / pz + q kick (z - z_magnet) / pz.
    """
    pz = tracks.p * np.tanh(tracks.eta)
    slope = 1.0 / np.sinh(tracks.eta)
    bend = flight.charge * KICK * (z - MAGNET) / pz
    return z * slope * np.cos(flight.phi) + bend, z * slope * np.sin(flight.phi)


def kink_offsets(flight: Flight, z: float) -> tuple[AnyArray, AnyArray]:
    """Return how far a muon of a decay is from the extrapolation at z, (n,) each, mm.

    The extrapolation follows the muon where the tracking stations saw it alone.
    """
    path = np.where(flight.is_decayed, z - flight.decay, 0.0)
    offset = flight.kink * path * (1.0 - _seen_kink(flight.decay))
    return offset * np.cos(flight.kink_phi), offset * np.sin(flight.kink_phi)
