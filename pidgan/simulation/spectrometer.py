"""All PID variables of a track in a spectrometer like LHCb, from one truth.

RICH detectors, calorimeters and muon stations see the same track: one momentum, one
azimuth, one decay in flight, one interaction, one occupancy. Their likelihoods are
added to combined DLLs as LHCb does, and fixed functions stand for the ProbNN networks.
Each of these sums holds something that has no variable of its own, such as the energy
in the hadronic calorimeter, so that none is a function of the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, BoolArray, FloatArray
from pidgan.simulation import tracks as toy
from pidgan.simulation.calorimeter_pid import measure
from pidgan.simulation.detector import DATA, HYPOTHESES, MONTE_CARLO, Detector
from pidgan.simulation.flight import CALORIMETER, Flight, draw_flight, positions
from pidgan.simulation.rich import (
    CHUNK,
    GHOST_LOGIT,
    HADRON_SEPARATION,
    MIN_P,
    NETWORK_PRIOR,
    NETWORK_SEPARATION,
    NETWORK_SHARPNESS,
    SENTINEL,
    draw_ratio,
    draw_rings,
    simulate_rich,
)
from pidgan.simulation.stations import (
    DATA_STATIONS,
    SIMULATED_STATIONS,
    MuonSystem,
    simulate_stations,
)
from pidgan.simulation.tracks import SPECIES, Tracks

COMBINED = ("PIDK", "PIDp", "PIDmu", "PIDe")  # combined DLLs, relative to the pion
NETWORKS = (*HYPOTHESES, "ghost")  # what there are ProbNN variables of
NO_NETWORK = -2.0  # LHCb's value where a network could not be computed
NO_CALORIMETER = -999.0  # E/p of a track that misses the calorimeters

# Half widths of the calorimeters and of their hole in x and y, mm: LHCb, J. Instrum. 3
# (2008) S08005, Sec. 6.2.
OUTER_HALF, INNER_HALF = (3880.0, 3150.0), (324.0, 324.0)
STOCHASTIC = (
    3.0  # a further 9.5 % sqrt(GeV), square root of MeV: a sampling calorimeter
)

# Likelihoods of the calorimeters. Resolution of E/p of electrons at high energy and its
# stochastic part, most standard deviations that count, share in its tail; mean E/p of
# hadrons; mean hadronic share of electrons. Chosen near what `measure` gives.
ELECTRON_WIDTH, ELECTRON_STOCHASTIC, ELECTRON_TAIL = 0.03, 3.3, 0.08
HADRON_MEAN, ELECTRON_LEAK = 0.3, 0.015
LARGEST_RATIO = 6.0  # bound of the ratio from the hadronic share
MATCH_SEPARATION = 1.2  # of electrons, by the distance of cluster and track. Chosen.
# Energies of muons in both calorimeters: most probable value and width, MeV.
MUON_DEPOSITS = ((250.0, 120.0), (1350.0, 420.0))
MUON_TAIL = 0.05
HADRON_SCALES = (0.35, 0.45)  # mean shares of the momentum that hadrons leave there

NOT_MUON = -4.0  # what the networks see in place of the muon likelihood
LARGEST_LOGIT = 9.0  # at which the networks saturate
WORST_FIT = 2.6  # chi2 per degree of freedom above which the networks have no input
QUALITY_WEIGHT = (0.9, 0.35)  # pull of a bad fit and of a wide cluster on the networks


RESPONSE_STREAM = 300  # a stream of random numbers that no other simulation has


@dataclass(frozen=True, kw_only=True)
class Spectrometer:
    """Constants of all detectors."""

    rich: Detector
    stations: MuonSystem


REAL = Spectrometer(rich=DATA, stations=DATA_STATIONS)
SIMULATED = Spectrometer(rich=MONTE_CARLO, stations=SIMULATED_STATIONS)


@checked
def simulate_spectrometer_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
    charge: npt.ArrayLike | None = None,
) -> dict[str, AnyArray]:
    """Draw the true response to tracks of one species; each seed is another draw.

    Args:
        species: True species, one of `pidgan.simulation.tracks.SPECIES`; it says the
            charge.
        p: Momenta (n,), MeV.
        eta: Pseudorapidities (n,), above 0.
        n_tracks: Number of tracks (n,) in the event of each track.
        seed: Seed of the random generator.
        charge: Charges (n,), +1 or -1, in place of those of the species.

    Returns:
        Values (n,) of `RichDLL{k,p,mu,e,bt}`, -999 where the RICH saw nothing;
        `Calo_EoverP`, -999 outside the calorimeters; `InMuonAcc`, `isMuon`, and
        `MuonDLL`, -1000 where isMuon is false; `PID{K,p,mu,e}`;
        `ProbNN{pi,k,p,mu,e,ghost}`, -2 where they could not be computed; and
        `TRCHI2NDOF`, the chi2 per degree of freedom of the fit of the track.

    Raises:
        ValueError: The species is unknown, lengths differ or a value is impossible.

    Example:
        >>> response = simulate_spectrometer_response("mu+", [2e4], [3.0], [99], seed=1)
        >>> bool(response["InMuonAcc"][0])
        True
    """
    toy.check_species(species, tuple(SPECIES))
    sign = -1.0 if species in ("pi-", "K-", "p~", "mu-", "e-") else 1.0
    n = np.size(np.asarray(p))
    columns = toy.checked_columns(
        {
            "p": (p, MIN_P, np.inf),
            "eta": (eta, np.finfo(float).tiny, np.inf),
            "n_tracks": (n_tracks, 0.0, np.inf),
            "charge": (np.full(n, sign) if charge is None else charge, -1.0, 1.0),
        }
    )
    if not np.all(np.abs(columns[3]) == 1.0):
        wrong = columns[3][np.abs(columns[3]) != 1.0][0]
        raise ValueError(f"charge has the value {wrong:g}, expected +1 or -1")
    rng = np.random.default_rng([seed, RESPONSE_STREAM])
    tracks = Tracks(np.full(n, SPECIES[species]), *columns[:3])
    phi = rng.uniform(-np.pi, np.pi, n)
    return respond(tracks, charge=columns[3], phi=phi, spectrometer=REAL, rng=rng)


def respond(
    tracks: Tracks,
    *,
    charge: AnyArray,
    phi: AnyArray,
    spectrometer: Spectrometer,
    rng: np.random.Generator,
) -> dict[str, AnyArray]:
    """Draw all PID variables of tracks, each (n,), chunk by chunk."""

    def respond_to(charge: AnyArray, phi: AnyArray, *columns: AnyArray) -> toy.Branches:
        return _respond(Tracks(*columns), charge, phi, spectrometer, rng)

    columns = [charge, phi, *vars(tracks).values()]
    return toy.in_chunks(respond_to, columns, size=CHUNK)


def _respond(
    tracks: Tracks,
    charge: AnyArray,
    phi: AnyArray,
    spectrometer: Spectrometer,
    rng: np.random.Generator,
) -> dict[str, AnyArray]:
    """Draw all PID variables of tracks."""
    detector = spectrometer.rich
    rings = draw_rings(tracks, detector, rng)
    flight = draw_flight(
        tracks, rings, charge=charge, phi=phi, detector=detector, rng=rng
    )
    rich = simulate_rich(tracks, detector=detector, rng=rng, rings=rings)
    muon = simulate_stations(tracks, flight, system=spectrometer.stations, rng=rng)
    calorimeter = _simulate_calorimeters(tracks, flight, rng)
    ratios = _ratios(tracks, rich, calorimeter, muon, rng)
    combined = {
        name: ratios[h] - ratios["pi"]
        for name, h in zip(COMBINED, ("k", "p", "mu", "e"), strict=True)
    }
    networks = _networks(
        tracks,
        flight,
        ratios,
        has_input=(rich["RichDLLk"] != np.float32(SENTINEL))
        | calorimeter["inside"]
        | muon["InMuonAcc"],
        width=calorimeter["width"],
        rng=rng,
    )
    measured = {
        "TRCHI2NDOF": flight.fit,
        **rich,
        "Calo_EoverP": calorimeter["e_over_p"],
        **muon,
        **combined,
        **networks,
    }
    return {
        name: v if v.dtype == bool else v.astype(np.float32)
        for name, v in measured.items()
    }


def _simulate_calorimeters(
    tracks: Tracks, flight: Flight, rng: np.random.Generator
) -> dict[str, AnyArray]:
    """Return E/p, likelihood ratios to hadrons, and the width of the cluster, (n,)."""
    n = len(tracks.p)
    energy, hadronic, width = np.zeros((3, n))
    decayed = flight.is_decayed
    kind = np.where(decayed, HYPOTHESES.index("mu"), tracks.species)
    names = dict(enumerate(("pi+", "K+", "p", "mu+", "e+")))
    for index, name in names.items():
        rows = np.flatnonzero(kind == index)
        if len(rows) == 0:
            continue
        own = (tracks.p * flight.share)[rows]
        ecal, hcal, squared = measure(
            name,
            own,
            np.zeros(len(rows)),
            tracks.n_tracks[rows] * flight.density[rows],
            rng=rng,
            depth=flight.depth[rows],
        )
        energy[rows], hadronic[rows] = ecal.sum(axis=1), hcal.sum(axis=1)
        width[rows] = np.sqrt(squared)
    noise = STOCHASTIC / np.sqrt(np.maximum(energy, 100.0)) * rng.standard_normal(n)
    energy *= np.maximum(1.0 + noise, 0.0)
    x, y = (np.abs(c) for c in positions(tracks, flight, CALORIMETER))
    inside = (x < OUTER_HALF[0]) & (y < OUTER_HALF[1])
    inside &= (x > INNER_HALF[0]) | (y > INNER_HALF[1])
    is_electron = (tracks.species == HYPOTHESES.index("e")) & inside
    electron = _electron_ratio(energy, hadronic, tracks.p)
    electron += draw_ratio(is_electron, MATCH_SEPARATION, rng)
    muon = _muon_ratio(energy, hadronic, tracks.p)
    return {
        "inside": inside,
        "e_over_p": np.where(inside, energy / tracks.p, NO_CALORIMETER),
        "electron": np.where(inside, electron, 0.0),
        "muon": np.where(inside, muon, 0.0),
        "width": np.where(inside, width, 0.0),
    }


def _electron_ratio(energy: AnyArray, hadronic: AnyArray, p: AnyArray) -> FloatArray:
    """Return ln L_e - ln L_hadron of the energies in both calorimeters."""
    ratio = energy / p
    width = np.hypot(ELECTRON_WIDTH, ELECTRON_STOCHASTIC / np.sqrt(p))
    core = np.exp(-0.5 * ((ratio - 1.0) / width) ** 2) / (width * np.sqrt(2.0 * np.pi))
    electron = (1.0 - ELECTRON_TAIL) * core + ELECTRON_TAIL * np.exp(-ratio)
    hadron = np.exp(-ratio / HADRON_MEAN) / HADRON_MEAN
    share = hadronic / np.maximum(energy + hadronic, 1.0)
    leak = np.log(0.5 / ELECTRON_LEAK) - share / ELECTRON_LEAK
    bounded = LARGEST_RATIO * np.tanh(leak / LARGEST_RATIO)
    return np.asarray(np.log(electron / np.maximum(hadron, 1e-4)) + bounded)


def _muon_ratio(energy: AnyArray, hadronic: AnyArray, p: AnyArray) -> FloatArray:
    """Return ln L_mu - ln L_hadron of the energies in both calorimeters."""
    result = np.zeros(len(p))
    for values, (peak, width), share in zip(
        (energy, hadronic), MUON_DEPOSITS, HADRON_SCALES, strict=True
    ):
        core = np.exp(-0.5 * ((values - peak) / width) ** 2)
        tail = np.exp(-values / (3.0 * peak)) / (3.0 * peak)
        core /= width * np.sqrt(2.0 * np.pi)
        muon = (1.0 - MUON_TAIL) * core + MUON_TAIL * tail
        scale = share * p
        hadron = np.exp(-values / scale) / scale + 1e-7
        result += np.log(np.maximum(muon, 1e-8) / hadron)
    return np.asarray(0.5 * result)


def _ratios(
    tracks: Tracks,
    rich: Mapping[str, AnyArray],
    calorimeter: Mapping[str, AnyArray],
    muon: Mapping[str, AnyArray],
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    """Return the sum of the log-likelihoods of each hypothesis over all detectors.

    A detector that did not see the track adds 0 to all, as in LHCb. The ratio of kaons
    and protons to pions without the RICH is the one of `simulate_response`.
    """
    n = len(tracks.p)
    seen = rich["RichDLLk"] != np.float32(SENTINEL)
    total: dict[str, FloatArray] = {"pi": np.zeros(n)}
    for h in HYPOTHESES[1:]:
        total[h] = np.where(seen, rich[f"RichDLL{h}"], 0.0).astype(np.float64)
    for h in ("k", "p"):
        own = tracks.species == HYPOTHESES.index(h)
        total[h] += draw_ratio(own, HADRON_SEPARATION, rng)
    total["e"] += calorimeter["electron"]
    total["mu"] += calorimeter["muon"]
    total["mu"] += np.where(muon["isMuon"], muon["MuonDLL"], 0.0)
    return total


def _networks(
    tracks: Tracks,
    flight: Flight,
    ratios: Mapping[str, FloatArray],
    *,
    has_input: BoolArray,
    width: AnyArray,
    rng: np.random.Generator,
) -> dict[str, AnyArray]:
    """Return the ProbNN variables (n,): one fixed function for each hypothesis.

    Each is a logistic function of its log-likelihood against the sum of the others, of
    the fit of the track, and of ratios that only the networks see. It saturates.
    """
    n = len(tracks.p)
    mean, spread, rise = GHOST_LOGIT
    ghost = mean + spread * rng.standard_normal(n) + rise * tracks.n_tracks
    ghost += 2.0 * (flight.fit - 1.0)
    logits = np.stack([NETWORK_SHARPNESS * ratios[h] for h in HYPOTHESES])
    for h in range(len(HYPOTHESES)):
        logits[h] += draw_ratio(tracks.species == h, NETWORK_SEPARATION, rng)
        logits[h] += NETWORK_PRIOR[h]
    quality = QUALITY_WEIGHT[0] * (1.0 - flight.fit)
    quality -= QUALITY_WEIGHT[1] * np.log(np.maximum(width, 1.0) / 10.0) * (width > 0)
    computed = has_input & (flight.fit < WORST_FIT)
    result = {}
    for h, name in enumerate(HYPOTHESES):
        others = np.delete(logits, h, axis=0)
        largest = others.max(axis=0)
        rest = largest + np.log(np.exp(others - largest).sum(axis=0))
        result[name] = logits[h] - rest + quality
    result["ghost"] = ghost
    return {
        f"ProbNN{name}": np.where(computed, _saturated(result[name]), NO_NETWORK)
        for name in NETWORKS
    }


def _saturated(logit: AnyArray) -> FloatArray:
    """Return the probability of a logit that does not grow beyond a bound."""
    bounded = LARGEST_LOGIT * np.tanh(logit / LARGEST_LOGIT)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)))
