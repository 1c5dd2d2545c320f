"""Momentum, pseudorapidity and occupancy of simulated tracks.

ln pT is normal and eta is normal, both within LHCb's acceptance; p = pT cosh(eta)
makes the two correlate as in data. The medians put the most probable momenta where
LHCb's 2016 calibration samples have them: 3 GeV for pions, 7 GeV for muons, 9 GeV for
kaons and 12 GeV for protons.
"""

from dataclasses import dataclass

import numpy as np

from pidgan.arrays import AnyArray, BoolArray, FloatArray, IntArray

P_RANGE = (3000.0, 200000.0)  # momenta of long tracks in the samples, MeV
ETA_RANGE = (1.5, 5.5)  # smallest and largest pseudorapidity in the samples
MAX_TRACKS = 1000  # number of tracks that every event stays below
MEAN_TRACKS = 180.0  # mean number of tracks of a triggered Run 2 event
TRACKS_SHAPE = 3.0  # shape of the gamma distribution of the number of tracks
SPD_PER_TRACK = 1.9  # mean hits in the scintillating pad detector for each track
SPD_SPREAD = 0.2  # relative spread of the hits for a given number of tracks


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Medians and spreads of ln pT (pT in MeV) and of eta."""

    pt_median: float
    pt_spread: float
    eta_mean: float
    eta_spread: float


SPECTRA = {
    "dstar_k": Spectrum(
        pt_median=1430.0, pt_spread=0.73, eta_mean=3.35, eta_spread=0.5
    ),
    "dstar_pi": Spectrum(pt_median=720.0, pt_spread=0.88, eta_mean=3.3, eta_spread=0.5),
    "lambda_p": Spectrum(
        pt_median=1800.0, pt_spread=0.7, eta_mean=3.35, eta_spread=0.5
    ),
    "jpsi_mu": Spectrum(pt_median=1250.0, pt_spread=0.7, eta_mean=3.25, eta_spread=0.5),
    "jpsi_e": Spectrum(pt_median=1100.0, pt_spread=0.7, eta_mean=3.25, eta_spread=0.5),
}


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
        inside = _within(new_p, P_RANGE) & _within(new_eta, ETA_RANGE)
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


def _within(x: AnyArray, limits: tuple[float, float]) -> BoolArray:
    """Return which values lie within closed limits."""
    return (x >= limits[0]) & (x <= limits[1])
