"""PID variables of calorimeters: E/p, width and depth of showers, hadronic fraction.

A track enters an electromagnetic calorimeter of lead tungstate in four layers, then a
hadronic one in three. Electrons radiate before it and shower as gamma distributions.
Hadrons ionise until they interact; their energy then goes to neutral pions, which
shower at once, and to a hadronic part. Muons ionise. Noise, thresholds and other tracks
of the event act on the layers.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import AnyArray, FloatArray, IntArray
from pidgan.simulation import tracks
from pidgan.simulation.detector import HYPOTHESES, MASSES

CALORIMETER_TREE = "Calo/DecayTree"  # tree that `simulate_calorimeter` makes

# Species to choose from; an antiparticle responds like its particle.
CALORIMETER_SPECIES = ("e+", "mu+", "pi+", "K+", "p", "gamma")
NO_CLUSTER = -999.0  # width and depth without electromagnetic energy

# Depths between the electromagnetic layers, radiation lengths. Chosen.
ECAL_EDGES = np.array([0.0, 3.0, 9.0, 18.0, 25.0])
# Depths between the hadronic layers at eta = 0, interaction lengths. Chosen.
HCAL_EDGES = np.array([0.0, 1.0, 3.0, 6.0])
CRITICAL_ENERGY = 9.64  # MeV, electrons in lead tungstate (Particle Data Group, 2024)
Z_EFFECTIVE = 68.4  # effective atomic number of lead tungstate (hep-ex/0001020, Eq. 9)
MOLIERE_RADIUS = 19.6  # mm, lead tungstate (Particle Data Group, 2024)
X0_PER_LAMBDA = 22.8  # radiation lengths in an interaction length: 203 mm / 8.9 mm
ECAL_IONISATION = 9.1  # most probable deposit, MeV per radiation length
HCAL_IONISATION = 210.0  # most probable deposit, MeV per interaction length
IONISATION_SPREAD = 0.08  # relative width of the Landau-like deposit. Chosen.
MATERIAL = 0.3  # radiation lengths before the calorimeter at eta = 0
RECOVERED = 0.8  # share of radiated energy in the cluster of an electron. Chosen.
TRACK_RESOLUTION = 0.006  # relative momentum resolution. Chosen.
HADRON_TO_ELECTRON = (0.5, 0.75)  # response to the hadronic part over electrons

# k and E0 (MeV) of the mean share 1 - (E / E0)^(k - 1) that goes into neutral pions: R.
# Wigmans, Calorimetry, 2nd ed. (2017), Sec. 2.3.1.
NEUTRAL_POWER = {"pi": (0.82, 1000.0), "k": (0.82, 1000.0), "p": (0.82, 2600.0)}
NEUTRAL_SPREAD = 0.22  # standard deviation of this share. Chosen.

# Interaction length of each hadron over the nuclear one of protons. Chosen.
INTERACTION_LENGTHS = {"pi": 1.15, "k": 1.3, "p": 1.0}
# Sampling and light fluctuations s in sigma = s sqrt(E), square root of MeV, in both
# calorimeters: 2.8 % and 70 % of the square root of GeV.
STOCHASTIC = (0.9, 22.0)
CONSTANT = (0.006, 0.03)  # relative resolution at high energy of both calorimeters
NOISE = (25.0, 150.0)  # noise of a layer within the cluster in both calorimeters, MeV
THRESHOLDS = (75.0, 500.0)  # energy below which a layer is set to 0, MeV
PILE_UP = 0.25  # mean energy from each other track of the event, MeV. Chosen.
P_RANGE = (1e3, 100e3)  # smallest and largest momentum in the sample, MeV
MAX_ETA = 1.4  # largest absolute pseudorapidity of the barrel
MAX_TRACKS = 1000  # number of tracks that every event stays below

_DEPTHS = np.arange(0.125, 25.0, 0.25)
CHUNK = 8192  # number of tracks at a time


@checked
def simulate_calorimeter_response(
    species: str,
    p: npt.ArrayLike,
    eta: npt.ArrayLike,
    n_tracks: npt.ArrayLike,
    *,
    seed: int,
) -> dict[str, FloatArray]:
    """Draw the true response to tracks of one species; each seed is another draw.

    Electromagnetic showers have the longitudinal profile (b t)^(a - 1) exp(-b t) with
    the correlated fluctuations of G. Grindhammer and S. Peters, hep-ex/0001020,
    Sec. 3.1. The profile of the hadronic part is the one of R. Bock,
    T. Hansl-Kozanecka, T. Shah, Nucl. Instr. Meth. 186 (1981) 533.

    Args:
        species: True species, one of `CALORIMETER_SPECIES`.
        p: Measured momenta (n,), or true energies of photons, MeV.
        eta: Pseudorapidities (n,), within +-`MAX_ETA`.
        n_tracks: Number of tracks (n,) in the event of each track.
        seed: Seed of the random generator.

    Returns:
        Values (n,) of `Calo_EoverP`; `Calo_Width` and `Calo_Depth`, the lateral root
        mean square in mm and the centre of energy in radiation lengths of the
        electromagnetic cluster, `NO_CLUSTER` where there is none; `Calo_HadFraction`,
        the hadronic share of all energy, exactly 0 without hadronic energy above
        threshold.

    Raises:
        ValueError: The species is unknown, lengths differ or a value is impossible.

    Example:
        >>> response = simulate_calorimeter_response("e+", [20e3], [0.1], [90], seed=1)
        >>> bool(0.8 < response["Calo_EoverP"][0] < 1.2)
        True
    """
    tracks.check_species(species, CALORIMETER_SPECIES)
    # The parametrisation of electromagnetic showers does not hold at lower energies.
    columns = tracks.checked_columns(
        {
            "p": (p, 0.5 * P_RANGE[0], np.inf),
            "eta": (eta, -MAX_ETA, MAX_ETA),
            "n_tracks": (n_tracks, 0.0, np.inf),
        }
    )
    rng = np.random.default_rng(seed)
    found = tracks.in_chunks(partial(_respond, species, rng=rng), columns, size=CHUNK)
    return {name: values.astype(np.float32) for name, values in found.items()}


@checked
def simulate_calorimeter(
    species: str, n: int, *, seed: int = 1
) -> dict[str, dict[str, AnyArray]]:
    """Simulate a calibration sample of n tracks of one species, without background.

    Args:
        species: True species, one of `CALORIMETER_SPECIES`; half of the charged
            tracks are antiparticles.
        n: Number of tracks.
        seed: Seed of the random generator.

    Returns:
        Branches of the tree `CALORIMETER_TREE`: conditions, PID variables of
        `simulate_calorimeter_response` with the prefix `probe_`, charge and
        `probe_TRUEID`.

    Raises:
        ValueError: The species is unknown, or there are no tracks.

    Example:
        >>> trees = simulate_calorimeter("pi+", 100, seed=1)
        >>> len(trees[CALORIMETER_TREE]["probe_Calo_EoverP"])
        100
    """
    tracks.check_species(species, CALORIMETER_SPECIES)
    rng = np.random.default_rng([seed, CALORIMETER_SPECIES.index(species)])
    low, high = np.log(P_RANGE)
    p = np.exp(rng.uniform(low, high, n))
    eta = rng.uniform(-MAX_ETA, MAX_ETA, n)
    n_tracks = np.clip(np.ceil(rng.gamma(3.0, 60.0, n)), 1, MAX_TRACKS - 1)
    response = simulate_calorimeter_response(
        species, p, eta, n_tracks, seed=int(rng.integers(2**63))
    )
    charge = tracks.draw_charges(n, rng=rng)
    ids: IntArray = np.full(n, 22, dtype=np.int32)
    if species == "gamma":
        charge = np.zeros_like(charge)
    else:
        ids = tracks.true_ids(tracks.SPECIES[species], charge)
    branches = {
        **tracks.probe_branches(p, eta, charge),
        "nTracks": n_tracks.astype(np.int32),
        **{f"probe_{name}": value for name, value in response.items()},
        "probe_TRUEID": ids,
    }
    return {CALORIMETER_TREE: branches}


def _respond(
    species: str,
    p: FloatArray,
    eta: FloatArray,
    n_tracks: FloatArray,
    *,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    """Return the PID variables of tracks of one species."""
    ecal, hcal, squared = measure(species, p, eta, n_tracks, rng=rng)
    total = ecal.sum(axis=1)
    has_cluster = total > 0.0
    safe = np.where(has_cluster, total, 1.0)
    middles = 0.5 * (ECAL_EDGES[1:] + ECAL_EDGES[:-1])
    both = total + hcal.sum(axis=1)
    return {
        "Calo_EoverP": total / p,
        "Calo_Width": np.where(has_cluster, np.sqrt(squared), NO_CLUSTER),
        "Calo_Depth": np.where(has_cluster, ecal @ middles / safe, NO_CLUSTER),
        "Calo_HadFraction": hcal.sum(axis=1) / np.where(both > 0.0, both, 1.0),
    }


def measure(
    species: str,
    p: FloatArray,
    eta: FloatArray,
    n_tracks: FloatArray,
    *,
    rng: np.random.Generator,
    depth: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Measure tracks of one species.

    Args:
        species: True species, one of `CALORIMETER_SPECIES`.
        p: Momenta (n,), MeV.
        eta: Pseudorapidities (n,), 0 for normal incidence.
        n_tracks: Number of tracks (n,) in the event of each track.
        rng: Source of randomness.
        depth: Interaction lengths (n,) before a hadron interacts; drawn by default.

    Returns:
        Energies in the electromagnetic layers, (n, 4), and in the hadronic ones,
        (n, 3), MeV, and the squared width of the electromagnetic cluster, (n,), mm2.
    """
    energy, ecal, hcal, spread = _deposits(species, p, eta, rng, depth)
    others = PILE_UP * n_tracks * rng.standard_exponential(len(p))
    ecal[:, :2] += 0.5 * others[:, None]
    ecal, hcal = (_read_out(e, i, rng) for i, e in enumerate((ecal, hcal)))
    total = ecal.sum(axis=1)
    safe = np.where(total > 0.0, total, 1.0)
    # Energy of other tracks is anywhere in a cluster of three Moliere radii.
    squared = spread**2 + np.minimum(others / safe, 1.0) * 9.0 * MOLIERE_RADIUS**2 / 2.0
    squared *= np.exp(rng.standard_normal(len(p)) * 2.0 / np.sqrt(energy))
    return ecal, hcal, squared


def _deposits(
    species: str,
    p: FloatArray,
    eta: FloatArray,
    rng: np.random.Generator,
    depth: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return energies (n,), deposits (n, 4) and (n, 3), MeV, and lateral spread, mm."""
    n = len(p)
    hcal_edges = HCAL_EDGES * np.cosh(eta)[:, None]
    if species in ("e+", "gamma"):
        if species == "gamma":
            # Photons convert after 9/7 of a radiation length.
            energy, start = p.copy(), rng.exponential(9.0 / 7.0, n)
        else:
            energy, start = _radiate(p, eta, rng), np.zeros(n)
        fractions, spread = _electromagnetic(energy, start, rng)
        # Energy that leaks out behind goes into the first hadronic layer.
        leaked = energy * np.clip(1.0 - fractions.sum(axis=1), 0.0, None)
        hcal = np.stack([leaked, 0.0 * leaked, 0.0 * leaked], axis=1)
        return energy, energy[:, None] * fractions, hcal, spread
    momentum = p * (1.0 + TRACK_RESOLUTION * rng.standard_normal(n))
    name = HYPOTHESES[tracks.SPECIES[species]]
    mass = MASSES[tracks.SPECIES[species]]
    # The mass of a meson becomes visible energy, the mass of a baryon does not.
    energy = np.hypot(momentum, mass) - (mass if name in ("p", "mu") else 0.0)
    if name == "mu":
        depth = np.full(n, np.inf)
    elif depth is None:
        depth = rng.exponential(INTERACTION_LENGTHS[name], n)
    ecal_lambda = ECAL_EDGES / X0_PER_LAMBDA
    edges = np.concatenate(
        [np.tile(ecal_lambda, (n, 1)), ecal_lambda[-1] + hcal_edges[:, 1:]], axis=1
    )
    before = np.clip(depth[:, None] - edges[:, :-1], 0.0, np.diff(edges, axis=1))
    deposits = before * np.repeat(
        [ECAL_IONISATION * X0_PER_LAMBDA, HCAL_IONISATION], [4, 3]
    )
    # Moyal's approximation of Landau's distribution: -ln of a chi-squared variable.
    moyal = -np.log(rng.chisquare(1.0, deposits.shape))
    deposits *= 1.0 + IONISATION_SPREAD * moyal
    spread = 0.25 * MOLIERE_RADIUS * np.ones(n)
    if name != "mu":
        ecal_before = deposits[:, :4].sum(axis=1)
        left = np.clip(energy - deposits.sum(axis=1), 0.0, None)
        showers, width = _hadronic(left, depth, edges, name=name, rng=rng)
        deposits += showers
        weight = showers[:, :4].sum(axis=1)
        total = np.maximum(weight + ecal_before, 1e-9)
        spread = np.sqrt((weight * width**2 + ecal_before * spread**2) / total)
    return np.maximum(energy, 1.0), deposits[:, :4], deposits[:, 4:], spread


def _radiate(p: FloatArray, eta: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the energy in the cluster of electrons with a measured momentum.

    -ln z of the share z that t radiation lengths leave is gamma distributed with shape
    t / ln 2 (H. Bethe, W. Heitler, Proc. R. Soc. A 146 (1934) 83).
    """
    lost = -np.expm1(-rng.gamma(MATERIAL * np.cosh(eta) / np.log(2.0)))
    # A track with a larger loss would not be found.
    lost = np.minimum(lost, 0.9)
    resolution = 1.0 + TRACK_RESOLUTION * rng.standard_normal(len(p))
    initial = p * resolution / (1.0 - 0.5 * rng.random(len(p)) * lost)
    return np.asarray(initial * (1.0 - lost * (1.0 - RECOVERED)))


def _electromagnetic(
    energy: FloatArray, start: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return shares (n, 4) of the energy in each layer, and the lateral spread, mm."""
    log_y = np.log(np.maximum(energy / CRITICAL_ENERGY, 20.0))
    widths = 1.0 / (-1.4 + 1.26 * log_y), 1.0 / (-0.58 + 0.86 * log_y)
    rho = 0.705 - 0.023 * log_y
    z1, z2 = rng.standard_normal((2, len(energy)))
    maximum = (log_y - 0.812) * np.exp(widths[0] * z1)
    shape = 0.81 + (0.458 + 2.26 / Z_EFFECTIVE) * log_y
    shape *= np.exp(widths[1] * (rho * z1 + np.sqrt(1.0 - rho**2) * z2))
    shape = np.maximum(shape, 1.1)
    scale = (shape - 1.0) / maximum
    depth = _DEPTHS - start[:, None]
    inside = np.maximum(depth, 1e-3) * scale[:, None]
    density = np.exp((shape - 1.0)[:, None] * np.log(inside) - inside)
    density *= depth > 0.0
    density *= _shares_within(shape, scale, start) / np.maximum(
        density.sum(axis=1, keepdims=True), 1e-300
    )
    starts = np.searchsorted(_DEPTHS, ECAL_EDGES[:-1])
    fractions = np.asarray(np.add.reduceat(density, starts, axis=1))
    # Showers widen with depth: hep-ex/0001020, Sec. 3.2, in one number.
    relative = np.clip(depth / maximum[:, None], 0.0, 3.0)
    radius = MOLIERE_RADIUS * (0.3 + 0.35 * relative)
    total = np.maximum(density.sum(axis=1), 1e-12)
    spread = np.sqrt((density * radius**2).sum(axis=1) / total)
    return fractions, np.asarray(spread)


def _shares_within(
    shape: FloatArray, scale: FloatArray, start: FloatArray
) -> FloatArray:
    """Return the share (n, 1) of a gamma profile inside the calorimeter.

    The cube root of a gamma variable is nearly normal (E. Wilson, M. Hilferty, Proc.
    Natl. Acad. Sci. 17 (1931) 684); the logistic function stands for the normal one.
    """
    x = np.maximum(ECAL_EDGES[-1] - start, 0.01) * scale / shape
    score = (np.cbrt(x) - (1.0 - 1.0 / (9.0 * shape))) * 3.0 * np.sqrt(shape)
    return np.asarray(1.0 / (1.0 + np.exp(-1.702 * score)))[:, None]


def _hadronic(
    energy: FloatArray,
    depth: FloatArray,
    edges: FloatArray,
    *,
    name: str,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Return deposits (n, 7) of hadronic showers in all layers, and their width."""
    n = len(energy)
    power, unit = NEUTRAL_POWER[name]
    mean = 1.0 - np.maximum(energy / unit, 1.0) ** (power - 1.0)
    mean = np.clip(mean, 0.05, 0.95)
    # A Beta distribution with this mean and standard deviation.
    spread = np.minimum(NEUTRAL_SPREAD, 0.7 * np.sqrt(mean * (1.0 - mean)))
    count = mean * (1.0 - mean) / spread**2 - 1.0
    neutral = rng.beta(mean * count, (1.0 - mean) * count)
    finite = np.where(np.isfinite(depth), depth, 1e3)
    start = np.minimum(finite * X0_PER_LAMBDA, ECAL_EDGES[-1])
    fractions, width = _electromagnetic(np.maximum(neutral * energy, 1.0), start, rng)
    in_ecal = finite < edges[:, 4]
    result = np.zeros((n, 7))
    result[:, :4] = np.where(in_ecal, neutral * energy, 0.0)[:, None] * fractions
    rest = np.where(in_ecal, 1.0 - fractions.sum(axis=1), 1.0)
    place = (edges[:, 4:-1] <= finite[:, None]) & (finite[:, None] < edges[:, 5:])
    place[:, 0] |= in_ecal
    result[:, 4:] += np.where(place, (rest * neutral * energy)[:, None], 0.0)
    log_e = np.log(np.maximum(energy, 1e3) / 1e3)
    shape, scale = 0.6165 + 0.3183 * log_e, 0.9099 - 0.0237 * log_e
    # The centre of the hadronic part fluctuates.
    stretch = np.exp(0.3 * rng.standard_normal(n))
    x = np.clip(edges - finite[:, None], 0.0, None) * scale[:, None] * stretch[:, None]
    cumulative = _gamma_cdf(shape, x)
    hadronic = np.diff(cumulative, axis=1) * ((1.0 - neutral) * energy)[:, None]
    result += hadronic * np.repeat(HADRON_TO_ELECTRON, [4, 3])
    weight = result[:, :4].sum(axis=1)
    pure = np.where(in_ecal, neutral * energy * fractions.sum(axis=1), 0.0)
    share = pure / np.maximum(weight, 1e-9)
    # Pions and neutrons make it wider than a single electromagnetic shower.
    wide = MOLIERE_RADIUS * rng.gamma(9.0, 1.6 / 9.0, n)
    single = 1.3 * width
    return result, np.sqrt(share * single**2 + (1.0 - share) * wide**2)


def _gamma_cdf(shape: FloatArray, x: FloatArray) -> FloatArray:
    """Return the regularised incomplete gamma function P(shape, x), (n, k).

    It is the series sum_j x^j / (shape (shape + 1) ... (shape + j)) (M. Abramowitz,
    I. Stegun, 6.5.29), normalised to its value at large x.
    """
    grid = np.minimum(x, 25.0)
    a = shape[:, None]
    term = np.ones_like(grid) / a
    total = term.copy()
    for j in range(1, 90):
        term = term * grid / (a + j)
        total += term
    log_gamma = _log_gamma(a)
    result = total * np.exp(a * np.log(np.maximum(grid, 1e-300)) - grid - log_gamma)
    return np.asarray(np.clip(result, 0.0, 1.0))


def _log_gamma(a: FloatArray) -> FloatArray:
    """Return ln Gamma(a) by Stirling's series, after six steps of the recursion."""
    shifted = a + 6.0
    series = (shifted - 0.5) * np.log(shifted) - shifted + 0.5 * np.log(2.0 * np.pi)
    series += 1.0 / (12.0 * shifted) - 1.0 / (360.0 * shifted**3)
    return np.asarray(series - sum(np.log(a + k) for k in range(6)))


def _read_out(
    deposits: FloatArray, calorimeter: int, rng: np.random.Generator
) -> FloatArray:
    """Return measured deposits in the layers of a calorimeter, MeV."""
    constants = (STOCHASTIC, CONSTANT, NOISE, THRESHOLDS)
    stochastic, constant, noise, threshold = (c[calorimeter] for c in constants)
    variance = stochastic**2 * deposits + (constant * deposits) ** 2 + noise**2
    read = deposits + np.sqrt(variance) * rng.standard_normal(deposits.shape)
    return np.where(read > threshold, read, 0.0)
