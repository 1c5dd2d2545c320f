"""Samples of the simulated spectrometer: calibration samples and J/psi -> mu+ mu-.

The calibration samples have the trees, branches, masses and background of those of the
RICH detectors (`pidgan.simulation.calibration`), with all PID variables of
`pidgan.simulation.spectrometer`.
"""

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import AnyArray
from pidgan.errors import nearest
from pidgan.simulation import analysis
from pidgan.simulation import tracks as toy
from pidgan.simulation.calibration import MODES, calibration_trees, draw_probes
from pidgan.simulation.spectrometer import REAL, SIMULATED, respond
from pidgan.simulation.tracks import SPECTRA, Tracks

DIMUON_TRACKS = ("muplus", "muminus")  # prefixes of the tracks of `simulate_dimuons`

# Parent mass in MeV, species of the positive and of the negative candidate, share of
# the candidates: signal, then decays and pairs of hadrons that look like it.
DIMUONS: analysis.Decays = (
    (3096.9, 3, 3, 0.90),
    (3096.9, 0, 0, 0.05),
    (3096.9, 1, 0, 0.03),
    (3096.9, 3, 0, 0.02),
)

# Streams of random numbers, which no other simulation has.
CALIBRATION_STREAM, DIMUON_STREAM = 310, 320


@checked
def simulate_spectrometer(
    decay: str, n: int, *, seed: int = 1
) -> dict[str, dict[str, AnyArray]]:
    """Simulate a calibration sample of n candidates with the PID of all detectors.

    Args:
        decay: Decay that the tracks come from, one of
            `pidgan.simulation.RICH_MODES`.
        n: Number of candidates, signal and background, in both trees together.
        seed: Seed of the random generator.

    Returns:
        Arrays by tree and branch, as `simulate_calibration` has them, with the
        variables of `simulate_spectrometer_response`.

    Example:
        >>> trees = simulate_spectrometer("jpsi_mu", 1000, seed=1)
        >>> sorted(trees)
        ['Jpsi_MuMTuple/DecayTree', 'Jpsi_MuPTuple/DecayTree']
    """
    if decay not in MODES:
        raise ValueError(f"unknown decay {decay!r}{nearest(decay, MODES)}")
    mode = MODES[decay]
    rng = np.random.default_rng([seed, CALIBRATION_STREAM, list(MODES).index(decay)])
    probes = draw_probes(mode, SPECTRA[decay], n, rng=rng)
    momentum = toy.momentum_components(probes.tracks.p, probes.tracks.eta, rng=rng)
    response = respond(
        probes.tracks,
        charge=probes.charge,
        phi=np.arctan2(momentum["PY"], momentum["PX"]),
        spectrometer=REAL,
        rng=rng,
    )
    return calibration_trees(mode, probes, momentum, response, rng=rng)


@checked
def simulate_dimuons(n: int, *, seed: int = 1) -> dict[str, AnyArray | analysis.Jagged]:
    """Simulate an analysis ntuple, J/psi -> mu+ mu-, of n candidates.

    The PID branches `{track}_{variable}` come from a detector whose simulation is not
    quite right; `{track}_TRUE_{variable}` is the response that data would show.

    Args:
        n: Number of candidates, of which 90 % are signal.
        seed: Seed of the random generator.

    Returns:
        Branches (n,) of the tree `pidgan.simulation.ANALYSIS_TREE`, as
        `simulate_analysis` has them. The tracks are `muplus` and `muminus`.

    Example:
        >>> branches = simulate_dimuons(100, seed=1)
        >>> branches["muplus_isMuon"].dtype
        dtype('bool')
    """
    rng = np.random.default_rng([seed, DIMUON_STREAM])
    decay, momenta = analysis.draw_decays(DIMUONS, n, rng)
    n_tracks, n_spd = toy.draw_occupancy(n, scale=analysis.OCCUPANCY, rng=rng)
    branches = analysis.parent_branches(
        "Jpsi", decay, momenta, hypotheses=(3, 3), rng=rng
    )
    for i, (track, sign) in enumerate(zip(DIMUON_TRACKS, (1, -1), strict=True)):
        p, eta = analysis.p_and_eta(momenta[i])
        species = analysis.species_of(DIMUONS, decay, i)
        tracks, charge = Tracks(species, p, eta, n_tracks), np.full(n, sign)
        phi = np.arctan2(momenta[i, :, 1], momenta[i, :, 0])
        branches |= analysis.kinematic_branches(track, tracks, momenta[i], charge)
        branches[f"{track}_trackcharge"] = charge.astype(np.int32)
        for prefix, spectrometer in ((track, SIMULATED), (f"{track}_TRUE", REAL)):
            response = respond(
                tracks, charge=charge, phi=phi, spectrometer=spectrometer, rng=rng
            )
            branches |= {f"{prefix}_{name}": x for name, x in response.items()}
    return branches | analysis.event_branches(n_tracks, n_spd, rng)
