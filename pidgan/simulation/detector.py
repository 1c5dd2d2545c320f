"""Radiators and constants of the simulated detector, in data and in simulation.

`DATA` is tuned so that efficiencies follow those published for LHCb. `MONTE_CARLO` is
an official simulation: more photons, better resolution and less background.
"""

from dataclasses import dataclass, replace

import numpy as np

from pidgan.arrays import AnyArray

HYPOTHESES = ("pi", "k", "p", "mu", "e")  # order of particles in the simulation

# Masses in MeV in the order of `HYPOTHESES` (Particle Data Group, 2024).
MASSES = np.array([139.57039, 493.677, 938.27209, 105.65838, 0.51099895])
# PDG identifiers of the positive particles in the order of `HYPOTHESES`.
PDG_IDS = np.array([211, 321, 2212, -13, -11], dtype=np.int32)


@dataclass(frozen=True, kw_only=True)
class Radiator:
    """One gas radiator with its photon detector.

    Angles are in rad, momenta in MeV. Refractive indices give the published thresholds;
    acceptances, photon yields and resolutions are LHCb's in data (arXiv:1211.6759).
    `background` is tuned together with `DATA`.
    """

    index: float
    inner_edge: float
    outer_edge: float
    edge_width: float
    traverse_momentum: float
    photons: float
    resolution: float
    window: float
    background: float

    def threshold(self, mass: float) -> float:
        """Return the momentum m / sqrt(n^2 - 1) above which light is emitted, MeV."""
        return mass / float(np.sqrt(self.index**2 - 1.0))

    def yield_fraction(self, p: AnyArray, mass: float | AnyArray) -> AnyArray:
        """Return sin^2(theta) / sin^2(theta_max) by Frank and Tamm, 0 below threshold.

        cos(theta) = 1 / (n beta), hence sin^2(theta) = 1 - (1 + m^2/p^2) / n^2.
        """
        sin2 = 1.0 - (1.0 + (mass / p) ** 2) / self.index**2
        return np.asarray(np.maximum(sin2, 0.0) / (1.0 - 1.0 / self.index**2))

    def angle(self, yield_fraction: AnyArray) -> AnyArray:
        """Return the Cherenkov angle in rad that belongs to a yield fraction."""
        sin2_max = 1.0 - 1.0 / self.index**2
        return np.asarray(np.arcsin(np.sqrt(yield_fraction * sin2_max)))

    def acceptance(self, theta: AnyArray) -> AnyArray:
        """Return the visible share of a ring for tracks at polar angle theta."""
        inner = (theta - self.inner_edge) / (self.edge_width * self.inner_edge)
        outer = (self.outer_edge - theta) / (self.edge_width * self.outer_edge)
        return np.asarray(np.clip(inner, 0.0, 1.0) * np.clip(outer, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Constants of the response; angles in rad, momenta in MeV, lengths in mm."""

    rich1: Radiator
    rich2: Radiator
    yield_spread: float  # relative spread of a track's photon yield
    # Share of tracks with a mostly lost ring (kinks, interactions, wrong segments) at
    # the mean occupancy. The share rises linearly from half of it in an empty event.
    weak_fraction: float
    weak_yield: float  # mean of the gamma distributed share of photons that they keep
    photon_tail: tuple[float, float]  # share of photons with a worse angle; its factor
    # Error of the ring radius that all photons of a track share, for good and for worse
    # tracks; it comes from alignment and from the direction of the track.
    track_angles: tuple[float, float]
    worse_fraction: float  # share of worse tracks
    scattering: float  # part of multiple scattering in the same error, rad MeV
    index_offset: float  # ring radius left by the calibration of refractive indices
    density_spread: float  # relative spread of the hit density around a track
    decay_length: float  # length before the radiators where decays may be accepted


RICH1 = Radiator(  # C4F10
    index=1.0014,
    inner_edge=0.025,
    outer_edge=0.300,
    edge_width=0.12,
    traverse_momentum=0.0,
    photons=20.4,
    resolution=1.618e-3,
    window=0.062,
    background=15.0,
)

RICH2 = Radiator(  # CF4
    index=1.0005,
    inner_edge=0.015,
    outer_edge=0.120,
    edge_width=0.12,
    traverse_momentum=3500.0,
    photons=15.8,
    resolution=0.68e-3,
    window=0.038,
    background=17.0,
)

# Tuned so that efficiency and misidentification of PIDK > 0 follow LHCb's calibration
# samples of 2018 from 3 to 100 GeV; none of these numbers is published as such.
DATA = Detector(
    rich1=RICH1,
    rich2=RICH2,
    yield_spread=0.12,
    weak_fraction=0.07,
    weak_yield=0.25,
    photon_tail=(0.1, 3.0),
    track_angles=(0.09e-3, 0.58e-3),
    worse_fraction=0.35,
    scattering=0.55,
    index_offset=-0.062e-3,
    density_spread=0.19,
    decay_length=1400.0,
)

# Photo-electrons in simulation, 28.3 and 22.7: arXiv:1211.6759.
MONTE_CARLO = replace(
    DATA,
    rich1=replace(RICH1, photons=28.3, resolution=1.45e-3, background=10.0),
    rich2=replace(RICH2, photons=22.7, resolution=0.62e-3, background=12.0),
    weak_fraction=0.03,
    worse_fraction=0.15,
    index_offset=0.0,
    density_spread=0.1,
)
