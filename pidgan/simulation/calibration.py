"""Simulated calibration samples: probes of known species under a background.

Trees and branches are those of LHCb's Run 2 samples (L. Anderlini et al.,
LHCb-PUB-2016-005): probes with positive and with negative charge have a tree each. The
mass is independent of everything else within signal and within background, as the sPlot
method requires (M. Pivk, F. Le Diberder, arXiv:physics/0402083). Signal and background
differ in kinematics, occupancy and species, so that weights matter.
"""

from dataclasses import dataclass, replace

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.errors import nearest
from pidgan.simulation import tracks as toy
from pidgan.simulation.detector import DATA
from pidgan.simulation.rich import RICH_VARIABLES, respond
from pidgan.simulation.tracks import SPECIES, SPECTRA, Spectrum, Tracks

BACKGROUND_SOFTNESS = 0.85  # median pT of background relative to signal probes
BACKGROUND_OCCUPANCY = 1.15  # mean number of tracks relative to signal events
RUN_RANGE = (173_000, 185_700)  # first and last run number, of data taking in 2016


@dataclass(frozen=True)
class MassShape:
    """Signal of two Gaussians, and background exp(-m / slope), MeV."""

    branch: str
    window: tuple[float, float]
    mean: float
    widths: tuple[float, float]
    core_fraction: float
    slope: float
    signal_fraction: float


@dataclass(frozen=True)
class Mode:
    """A calibration mode: species, trees for positive and negative probes, mass.

    Shares of the species of background probes are in the order of `HYPOTHESES`.
    """

    species: str
    trees: tuple[str, ...]
    mass: MassShape
    mixture: tuple[float, float, float, float, float]


# Branch, window, mean, widths, core fraction, slope and signal fraction.
MASS_D0 = MassShape("D0_M", (1825.0, 1910.0), 1864.84, (6.6, 11.5), 0.7, 450.0, 0.75)
MASS_LAMBDA = MassShape(
    "Lam0_M", (1106.0, 1126.0), 1115.683, (1.1, 2.6), 0.65, 60.0, 0.74
)
MASS_JPSI_MU = MassShape(
    "Jpsi_M", (3020.0, 3175.0), 3096.9, (12.5, 21.0), 0.7, 900.0, 0.75
)
MASS_JPSI_E = MassShape(
    "Jpsi_M", (2500.0, 3600.0), 3080.0, (75.0, 150.0), 0.55, 1500.0, 0.72
)

# Species, names of the tuples, mass and shares of background species.
_MODES = {
    "dstar_k": ("K+", "DSt_KP DSt_KM", MASS_D0, (0.76, 0.14, 0.06, 0.02, 0.02)),
    "dstar_pi": ("pi+", "DSt_PiP DSt_PiM", MASS_D0, (0.72, 0.17, 0.07, 0.02, 0.02)),
    "lambda_p": (
        "p",
        "Lam0LL_P Lam0LL_Pbar",
        MASS_LAMBDA,
        (0.75, 0.13, 0.1, 0.01, 0.01),
    ),
    "jpsi_mu": (
        "mu+",
        "Jpsi_MuP Jpsi_MuM",
        MASS_JPSI_MU,
        (0.6, 0.22, 0.06, 0.11, 0.01),
    ),
    "jpsi_e": ("e+", "Jpsi_EP Jpsi_EM", MASS_JPSI_E, (0.66, 0.14, 0.06, 0.01, 0.13)),
}
MODES = {
    name: Mode(
        species, tuple(f"{t}Tuple/DecayTree" for t in tuples.split()), mass, mixture
    )
    for name, (species, tuples, mass, mixture) in _MODES.items()
}


RICH_MODES = tuple(MODES)  # names of the calibration modes


@checked
def simulate_calibration(
    decay: str, n: int, *, seed: int = 1
) -> dict[str, dict[str, AnyArray]]:
    """Simulate a calibration sample of n candidates.

    Args:
        decay: Decay that the tracks come from, one of `RICH_MODES`.
        n: Number of candidates, signal and background, in both trees together.
        seed: Seed of the random generator.

    Returns:
        Arrays by tree and branch. The branches of a tree have one length; the lengths
        of the two trees add up to n. `probe_TRUEID` and `probe_TRUE_SIGNAL` hold the
        truth.

    Example:
        >>> trees = simulate_calibration("dstar_k", 1000, seed=1)
        >>> sum(len(branches["D0_M"]) for branches in trees.values())
        1000
    """
    if decay not in MODES:
        raise ValueError(f"unknown decay {decay!r}{nearest(decay, MODES)}")
    settings = MODES[decay]
    rng = np.random.default_rng([seed, RICH_MODES.index(decay)])
    probes = draw_probes(settings, SPECTRA[decay], n, rng=rng)
    response = respond(probes.tracks, detector=DATA, rng=rng)
    momentum = toy.momentum_components(probes.tracks.p, probes.tracks.eta, rng=rng)
    return calibration_trees(settings, probes, momentum, response, rng=rng)


def draw_mass(
    shape: MassShape, is_signal: BoolArray, *, rng: np.random.Generator
) -> FloatArray:
    """Draw masses (n,) of signal and background rows within the window, MeV."""
    low, high = shape.window
    # The inverse of the cumulative exponential that is cut off at both edges.
    span = np.expm1(-(high - low) / shape.slope)
    mass = low - shape.slope * np.log1p(rng.random(len(is_signal)) * span)
    todo = np.flatnonzero(is_signal)
    while len(todo):
        core = rng.random(len(todo)) < shape.core_fraction
        width = np.where(core, *shape.widths)
        mass[todo] = shape.mean + width * rng.standard_normal(len(todo))
        todo = todo[(mass[todo] < low) | (mass[todo] > high)]
    return np.asarray(mass)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Tracks of a calibration sample with their truth, (n,) each."""

    tracks: Tracks
    charge: AnyArray
    n_spd: AnyArray
    is_signal: BoolArray


def draw_probes(
    mode: Mode, spectrum: Spectrum, n: int, *, rng: np.random.Generator
) -> Probes:
    """Draw kinematics, event, species and charge of probes, signal and background."""
    is_signal = rng.random(n) < mode.mass.signal_fraction
    softer = replace(spectrum, pt_median=BACKGROUND_SOFTNESS * spectrum.pt_median)
    p, eta = np.empty(n), np.empty(n)
    n_tracks, n_spd = np.empty((2, n), dtype=np.int32)
    for rows, kind, occupancy in (
        (np.flatnonzero(is_signal), spectrum, 1.0),
        (np.flatnonzero(~is_signal), softer, BACKGROUND_OCCUPANCY),
    ):
        p[rows], eta[rows] = toy.draw_p_eta(kind, len(rows), rng=rng)
        n_tracks[rows], n_spd[rows] = toy.draw_occupancy(
            len(rows), scale=occupancy, rng=rng
        )
    mixed = rng.choice(len(mode.mixture), n, p=mode.mixture)
    species = np.where(is_signal, SPECIES[mode.species], mixed)
    charge = toy.draw_charges(n, rng=rng)
    return Probes(
        tracks=Tracks(species, p, eta, n_tracks),
        charge=charge,
        n_spd=n_spd,
        is_signal=is_signal,
    )


def calibration_trees(
    mode: Mode,
    probes: Probes,
    momentum: toy.Branches,
    response: toy.Branches,
    *,
    rng: np.random.Generator,
) -> dict[str, toy.Branches]:
    """Return the trees of a mode, with masses and event numbers that are drawn here."""
    tracks = probes.tracks
    branches = {
        "probe_P": tracks.p,
        "probe_ETA": tracks.eta,
        **{f"probe_{name}": value for name, value in momentum.items()},
        "probe_trackcharge": probes.charge,
        "nTracks": tracks.n_tracks,
        "nSPDhits": probes.n_spd,
        **{calibration_branch(name): value for name, value in response.items()},
        "probe_TRUEID": toy.true_ids(tracks.species, probes.charge),
        "probe_TRUE_SIGNAL": probes.is_signal.astype(np.int8),
        mode.mass.branch: draw_mass(mode.mass, probes.is_signal, rng=rng),
        **toy.draw_event_numbers(len(tracks.p), RUN_RANGE, rng=rng),
    }
    positive = probes.charge > 0
    return {
        tree: {name: branch[rows] for name, branch in branches.items()}
        for tree, rows in zip(mode.trees, (positive, ~positive), strict=True)
    }


def calibration_branch(variable: str) -> str:
    """Return the name of the branch with a PID variable of the probe."""
    if variable in RICH_VARIABLES:
        return f"probe_Brunel_{variable}"
    if variable.startswith("ProbNN"):
        return f"probe_MC15TuneV1_{variable}"
    return f"probe_{variable}"
