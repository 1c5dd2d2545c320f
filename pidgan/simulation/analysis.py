"""A simulated analysis ntuple: anti-D0 -> K+ pi- decays with a wrong PID response.

The tracks are harder and the events busier than in the calibration samples. The PID
branches come from `MONTE_CARLO`; the response of `DATA` is `{track}_TRUE_{variable}`.
"""

from dataclasses import dataclass

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import AnyArray
from pidgan.simulation import tracks as toy
from pidgan.simulation.detector import DATA, MASSES, MONTE_CARLO
from pidgan.simulation.rich import RICH_VARIABLES, respond
from pidgan.simulation.tracks import P_RANGE, Tracks

ANALYSIS_TREE = "DecayTree"  # name of the tree of the analysis ntuple

TRACKS = ("Kplus", "piminus")  # prefixes of the tracks, for both charges

TRUE_VARIABLES = (*RICH_VARIABLES, "PIDK", "PIDp")  # with the response of data too

# Parent mass in MeV, species of the K and of the pi candidate (index into
# HYPOTHESES), share of the candidates: signal, then decays reconstructed as signal.
Decays = tuple[tuple[float, int, int, float], ...]
DECAYS: Decays = (
    (1864.84, 1, 0, 0.90),  # anti-D0 -> K+ pi-
    (1864.84, 0, 0, 0.05),  # anti-D0 -> pi+ pi-
    (1864.84, 1, 1, 0.03),  # anti-D0 -> K+ K-
    (2286.46, 2, 0, 0.02),  # Lambda_c+ -> p pi-, the rest of the decay lost
)

D_PT_SHAPE = 2.0  # shape of the gamma distribution of the parents' pT
D_PT_MEAN = 4000.0  # mean pT of the parents, MeV: harder than prompt charm
D_ETA = (3.2, 0.8)  # mean and spread of the parents' pseudorapidity
TRACK_ETA_RANGE = (2.0, 5.0)  # pseudorapidities of accepted tracks: LHCb's acceptance
MIN_TRACK_PT = 500.0  # smallest pT of accepted tracks, MeV
MOMENTUM_RESOLUTION = 0.005  # relative, for long tracks: LHCb, arXiv:1412.6352
OCCUPANCY = 1.25  # mean number of tracks relative to events of the calibration samples
TRACKS_PER_VERTEX = 150.0  # number of tracks for each further primary vertex
VERTEX_ERRORS = np.array([0.012, 0.012, 0.09])  # decay vertex along x, y, z, mm
RUN_RANGE = (174_000, 185_700)  # first and last run number, of data taking in 2016


@dataclass(frozen=True)
class Jagged:
    """A branch with several values for each entry: all values, and counts by entry."""

    content: AnyArray
    counts: AnyArray


@checked
def simulate_analysis(n: int, *, seed: int = 1) -> dict[str, AnyArray | Jagged]:
    """Simulate the analysis ntuple of n candidates, the tree `ANALYSIS_TREE`.

    Args:
        n: Number of candidates, of which 90 % are signal.
        seed: Seed of the random generator.

    Returns:
        Branches (n,); `D0_ENDVERTEX_COV` is (n, 3, 3), and `PVZ` is `Jagged`. Momenta
        and masses are in MeV, positions in mm.

    Example:
        >>> branches = simulate_analysis(100, seed=1)
        >>> branches["Kplus_RichDLLk"].shape
        (100,)
    """
    rng = np.random.default_rng([seed, 100])
    decay, momenta = draw_decays(DECAYS, n, rng)
    n_tracks, n_spd = toy.draw_occupancy(n, scale=OCCUPANCY, rng=rng)
    k_charge = toy.draw_charges(n, rng=rng)
    branches = parent_branches("D0", decay, momenta, hypotheses=(1, 0), rng=rng)
    for i, (track, charge) in enumerate(
        zip(TRACKS, (k_charge, -k_charge), strict=True)
    ):
        p, eta = p_and_eta(momenta[i])
        tracks = Tracks(species_of(DECAYS, decay, i), p, eta, n_tracks)
        simulated = respond(tracks, detector=MONTE_CARLO, rng=rng)
        truth = respond(tracks, detector=DATA, rng=rng)
        branches |= kinematic_branches(track, tracks, momenta[i], charge)
        branches[f"{track}_isMuon"] = simulated["isMuon"]
        branches |= {f"{track}_{name}": simulated[name] for name in TRUE_VARIABLES}
        branches |= {f"{track}_TRUE_{name}": truth[name] for name in TRUE_VARIABLES}
    return branches | event_branches(n_tracks, n_spd, rng)


def event_branches(
    n_tracks: AnyArray, n_spd: AnyArray, rng: np.random.Generator
) -> dict[str, AnyArray | Jagged]:
    """Return the branches of events with given occupancies (n,)."""
    n_pvs = (1 + rng.poisson(n_tracks / TRACKS_PER_VERTEX)).astype(np.int32)
    pv_z = (50.0 * rng.standard_normal(int(n_pvs.sum()))).astype(np.float32)
    return {
        "nTracks": n_tracks,
        "nSPDhits": n_spd,
        "nPVs": n_pvs,
        "PVZ": Jagged(content=pv_z, counts=n_pvs.astype(np.int64)),
        **toy.draw_event_numbers(len(n_tracks), RUN_RANGE, rng=rng),
    }


def draw_decays(
    table: Decays, n: int, rng: np.random.Generator
) -> tuple[AnyArray, AnyArray]:
    """Draw n accepted decays: rows (n,) of the table and momenta (2, n, 3)."""
    decays, momenta, found = [], [], 0
    while found < n:
        decay, momentum = _decay_parents(table, 2 * (n - found) + 100, rng)
        p = np.linalg.norm(momentum, axis=2)
        pt = np.hypot(momentum[..., 0], momentum[..., 1])
        eta = np.arctanh(momentum[..., 2] / p)
        inside = (p > P_RANGE[0]) & (p < P_RANGE[1]) & (pt > MIN_TRACK_PT)
        inside &= (eta > TRACK_ETA_RANGE[0]) & (eta < TRACK_ETA_RANGE[1])
        accepted = inside.all(axis=0)
        decays.append(decay[accepted])
        momenta.append(momentum[:, accepted])
        found += int(accepted.sum())
    return np.concatenate(decays)[:n], np.concatenate(momenta, axis=1)[:, :n]


def _decay_parents(
    table: Decays, n: int, rng: np.random.Generator
) -> tuple[AnyArray, AnyArray]:
    """Draw n two-body decays, isotropic at rest, with measured momenta (2, n, 3)."""
    parents, *daughters, shares = (np.array(c) for c in zip(*table, strict=True))
    decay = rng.choice(len(table), n, p=shares)
    mass, masses = parents[decay], MASSES[np.stack(daughters)[:, decay]]
    boost = _draw_directions(n, rng, eta=rng.normal(*D_ETA, n))
    pt = rng.gamma(D_PT_SHAPE, D_PT_MEAN / D_PT_SHAPE, n)
    boost *= (pt / mass / np.hypot(boost[:, 0], boost[:, 1]))[:, None]
    gamma = np.sqrt(1.0 + (boost**2).sum(axis=1))
    # Momentum of either daughter at rest, sqrt of the Kallen function over 2 m.
    plus = mass**2 - masses.sum(axis=0) ** 2
    q = np.sqrt(plus * (mass**2 - np.ptp(masses, axis=0) ** 2)) / (2.0 * mass)
    direction = _draw_directions(n, rng, eta=np.arctanh(rng.uniform(-1.0, 1.0, n)))
    momenta = np.empty((2, n, 3))
    for i, sign in enumerate((1.0, -1.0)):
        at_rest = sign * q[:, None] * direction
        energy = np.hypot(q, masses[i])
        along = (boost * at_rest).sum(axis=1) / (gamma + 1.0)
        momenta[i] = at_rest + boost * (along + energy)[:, None]
        momenta[i] *= 1.0 + MOMENTUM_RESOLUTION * rng.standard_normal((n, 1))
    return decay, momenta


def _draw_directions(n: int, rng: np.random.Generator, *, eta: AnyArray) -> AnyArray:
    """Return unit vectors (n, 3) with given pseudorapidity and uniform azimuth."""
    phi = rng.uniform(-np.pi, np.pi, n)
    transverse = 1.0 / np.cosh(eta)
    return np.stack(
        [transverse * np.cos(phi), transverse * np.sin(phi), np.tanh(eta)], axis=1
    )


def parent_branches(
    name: str,
    decay: AnyArray,
    momenta: AnyArray,
    *,
    hypotheses: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, AnyArray | Jagged]:
    """Return the branches of the candidate, with two mass hypotheses."""
    n = len(decay)
    total = momenta.sum(axis=0)
    masses = MASSES[list(hypotheses)][:, None]
    energy = np.hypot(np.linalg.norm(momenta, axis=2), masses).sum(axis=0)
    factor = np.tril(0.3 * rng.standard_normal((n, 3, 3)), -1)
    factor[:, range(3), range(3)] = np.exp(0.3 * rng.standard_normal((n, 3)))
    factor *= VERTEX_ERRORS[:, None]
    covariance = factor @ factor.transpose(0, 2, 1)
    return {
        f"{name}_M": np.sqrt(energy**2 - (total**2).sum(axis=1)),
        f"{name}_PT": np.hypot(total[:, 0], total[:, 1]),
        f"{name}_ENDVERTEX_COV": covariance.astype(np.float32),
        f"{name}_FDCHI2_OWNPV": rng.lognormal(6.0, 1.3, n).astype(np.float32),
        # LHCb's background categories: 0 is signal, 30 a decay with a wrong hypothesis.
        f"{name}_BKGCAT": np.where(decay == 0, 0, 30).astype(np.int16),
    }


def species_of(table: Decays, decay: AnyArray, track: int) -> AnyArray:
    """Return the species (n,) of a track, as indices into `HYPOTHESES`."""
    return np.array([row[1 + track] for row in table])[decay]


def p_and_eta(momentum: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return momenta and pseudorapidities (n,) of momenta (n, 3)."""
    p = np.linalg.norm(momentum, axis=1)
    return p, np.arctanh(momentum[:, 2] / p)


def kinematic_branches(
    track: str, tracks: Tracks, momentum: AnyArray, charge: AnyArray
) -> dict[str, AnyArray]:
    """Return the branches of one track with kinematics and truth."""
    return {
        f"{track}_P": tracks.p,
        f"{track}_PT": np.hypot(momentum[:, 0], momentum[:, 1]),
        **{f"{track}_P{c}": momentum[:, i].copy() for i, c in enumerate("XYZ")},
        f"{track}_ETA": tracks.eta,
        f"{track}_TRUEID": toy.true_ids(tracks.species, charge),
    }
