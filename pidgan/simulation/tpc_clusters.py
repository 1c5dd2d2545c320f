"""Clusters along helices in a time projection chamber, electron by electron.

Electrons of primary collisions start on the helix, drift with diffusion and are
amplified; the cluster of a row is their centre of gravity. Clusters are lost at the
borders of sectors and by chance. There is no multiple scattering and no energy loss:
the helix is the truth with which clusters are compared.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray
from pidgan.simulation import tpc
from pidgan.simulation.detector import MASSES
from pidgan.simulation.tracks import SPECIES

FIELD = 0.5  # magnetic field along z in T: arXiv:1402.4476

# Transverse and longitudinal diffusion, mm for the square root of 1 mm of drift (0.0209
# and 0.0221 cm for the square root of 1 cm: AliceO2, TPC gas parameters).
DIFFUSION = (0.0661, 0.0699)
READ_OUT = (0.3, 0.3)  # error along the pads and in z, mm. Chosen.
LOST = 0.04  # share of clusters lost by chance. Chosen.
N_SECTORS = 18  # number of sectors in azimuth
DEAD_ZONE = 12.0  # half width of the border between two sectors, mm. Chosen.
CLUSTER_ROWS = np.arange(1, tpc.N_ROWS, 3)  # every third pad row, 53 for each track
PT_RANGE = (250.0, 5000.0)  # transverse momenta, MeV; softer tracks curl up
MAX_DIP = 0.8  # tangent of the largest dip angle
VERTEX_SPREAD = 50.0  # standard deviation of the vertex along the beam, mm


CLUSTER_TREE = "Tracks"  # tree of tracks with their clusters
MISSING = -9999.0  # stored position of a lost cluster


@dataclasses.dataclass(frozen=True, kw_only=True)
class Helices:
    """Parameters (n,) of tracks that start on the beam axis.

    `pt` is in MeV, `dip` is pz / pt, `phi` the azimuth at the vertex, rad, `z` the
    vertex along the beam, mm, `charge` 1 or -1, and `species` an index into
    `TPC_SPECIES`.
    """

    pt: FloatArray
    dip: FloatArray
    phi: FloatArray
    z: FloatArray
    charge: FloatArray
    species: FloatArray

    def table(self) -> FloatArray:
        """Return the parameters as columns (n, 6), in the order of the attributes."""
        return np.stack([np.asarray(v) for v in vars(self).values()], axis=1)


def draw_helices(n: int, *, seed: int = 1) -> Helices:
    """Draw tracks with uniform ln pt, dip, azimuth, charge and species."""
    rng = np.random.default_rng(seed)
    low, high = np.log(PT_RANGE)
    return Helices(
        pt=np.exp(rng.uniform(low, high, n)),
        dip=rng.uniform(-MAX_DIP, MAX_DIP, n),
        phi=rng.uniform(-np.pi, np.pi, n),
        z=VERTEX_SPREAD * np.clip(rng.standard_normal(n), -3.0, 3.0),
        charge=rng.choice([-1.0, 1.0], n),
        species=rng.integers(0, len(tpc.TPC_SPECIES), n).astype(np.float64),
    )


@checked
def helix_points(helices: Helices, radii: npt.ArrayLike) -> FloatArray:
    """Return where helices cross cylinders about the beam.

    A track has turned by the angle psi = 2 arcsin(r / 2R) at the radius r, with
    R = pt / (0.299792 B). Its azimuth is phi - charge psi / 2, and its position along
    the beam is z = z0 + R psi dip (B along +z).

    Args:
        helices: Tracks, n of them.
        radii: Radii (k,) or (n, k), mm.

    Returns:
        Positions x, y and z (n, k, 3), mm.

    Raises:
        ValueError: A track curls up before it reaches a radius.

    Example:
        >>> track = draw_helices(1, seed=1)
        >>> points = helix_points(track, [1000.0])
        >>> float(np.hypot(points[0, 0, 0], points[0, 0, 1]).round(6))
        1000.0
    """
    if np.ndim(radii) != 1:
        raise ValueError(f"radii has shape {np.shape(radii)}, expected (k,)")
    r = np.asarray(radii, dtype=np.float64)
    curvature_radius = (helices.pt / (0.299792458 * FIELD))[:, None]
    half = r / (2.0 * curvature_radius)
    if np.any(half >= 1.0):
        raise ValueError(
            f"tracks of pt {helices.pt.min():.0f} MeV do not reach the radius "
            f"{r.max():.0f} mm"
        )
    psi = 2.0 * np.arcsin(half)
    azimuth = helices.phi[:, None] - 0.5 * helices.charge[:, None] * psi
    z = helices.z[:, None] + curvature_radius * psi * helices.dip[:, None]
    return np.stack([r * np.cos(azimuth), r * np.sin(azimuth), z], axis=2)


@checked
def simulate_clusters(
    helices: Helices, *, seed: int = 1
) -> tuple[FloatArray, BoolArray]:
    """Simulate the clusters that tracks leave in the rows `CLUSTER_ROWS`.

    Args:
        helices: Tracks, n of them.
        seed: Seed of the random generator.

    Returns:
        Positions (n, 53, 3), mm, NaN for lost clusters, and whether each cluster is
        found (n, 53).

    Example:
        >>> positions, found = simulate_clusters(draw_helices(2, seed=1), seed=1)
        >>> positions.shape, bool(np.isfinite(positions[found]).all())
        ((2, 53, 3), True)
    """
    rng = np.random.default_rng(seed)
    # The electrons of a few hundred tracks, a million, fit into a CPU cache.
    parts = [
        _simulate(
            Helices(**{k: v[start : start + 256] for k, v in vars(helices).items()}),
            rng,
        )
        for start in range(0, len(helices.pt), 256)
    ]
    positions, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    return positions, found


@checked
def simulate_cluster_tracks(n: int, *, seed: int = 1) -> dict[str, FloatArray]:
    """Draw tracks and simulate their clusters, as branches of a tree.

    Args:
        n: Number of tracks.
        seed: Seed of the random generator.

    Returns:
        Arrays (n,) by branch: the parameters "PT", "DIP", "PHI", "Z", "CHARGE" and
        "SPECIES" of the track, and the position "x_0", "y_0", "z_0", "x_1" and so on of
        the cluster in each row of `CLUSTER_ROWS`, mm, `MISSING` where it is lost.

    Example:
        >>> len(simulate_cluster_tracks(2, seed=1))
        165
    """
    helices = draw_helices(n, seed=seed)
    positions, found = simulate_clusters(helices, seed=seed + 1)
    positions = np.where(found[:, :, None], positions, MISSING)
    tracks = {name.upper(): values for name, values in vars(helices).items()}
    clusters = {
        f"{axis}_{row}": positions[:, row, k]
        for row in range(positions.shape[1])
        for k, axis in enumerate("xyz")
    }
    return tracks | clusters


def _simulate(
    helices: Helices, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    n, rows = len(helices.pt), CLUSTER_ROWS
    radii, height = tpc.ROW_RADII[rows], tpc.ROW_HEIGHTS[rows]
    shape = (n, len(radii))
    points = helix_points(helices, radii)
    masses = MASSES[[SPECIES[name] for name in tpc.TPC_SPECIES]]
    p = helices.pt * np.sqrt(1.0 + helices.dip**2)
    ionisation = tpc.PRIMARIES * tpc.bethe_bloch(
        p / masses[helices.species.astype(int)]
    )
    # Sine and tangent of the angle between track and radius in the plane of the pads.
    sine = radii * (0.5 * 0.299792458 * FIELD) / helices.pt[:, None]
    slope = -helices.charge[:, None] * sine / np.sqrt(1.0 - sine**2)
    along = height * np.sqrt(1.0 + slope**2) * np.hypot(1.0, helices.dip[:, None])
    primaries = np.maximum(rng.poisson(ionisation[:, None] * along), 1)
    electrons = _draw_electrons(int(primaries.sum()), rng)
    row = np.repeat(np.arange(primaries.size), primaries.ravel())
    depth = (rng.random(len(row)) - 0.5) * np.tile(height, n)[row]
    drift = np.clip(tpc.DRIFT_LENGTH - np.abs(points[:, :, 2]), 1.0, None)
    # The sum of k exponential gains is a gamma variable.
    weight = rng.gamma(electrons)
    start = np.concatenate([[0], np.cumsum(primaries.ravel())[:-1]])
    total = np.add.reduceat(weight, start)
    centre = (np.add.reduceat(weight * depth, start) / total).reshape(shape)
    # Electrons diffuse independently. The variance of their weighted mean has the
    # factor sum w_i^2 / (sum w_i)^2, about 2 / k for exponential gains of k electrons.
    count = np.add.reduceat(electrons, start).reshape(shape)
    spread = np.sqrt(drift * 2.0 / (count + 1.0))
    noise = rng.standard_normal((2, *shape))
    errors = [
        np.hypot(coefficient * spread, read_out) * z
        for coefficient, read_out, z in zip(DIFFUSION, READ_OUT, noise, strict=True)
    ]
    across = centre * slope + errors[0]
    azimuth = np.arctan2(points[:, :, 1], points[:, :, 0]) + across / radii
    z = points[:, :, 2] + centre * np.hypot(1.0, slope) * helices.dip[:, None]
    positions = np.stack(
        [radii * np.cos(azimuth), radii * np.sin(azimuth), z + errors[1]], axis=2
    )
    sector = np.mod(azimuth * N_SECTORS / (2.0 * np.pi), 1.0)
    border = np.minimum(sector, 1.0 - sector) * 2.0 * np.pi / N_SECTORS * radii
    found = (border > DEAD_ZONE) & (rng.random(shape) >= LOST)
    found &= np.abs(positions[:, :, 2]) < tpc.DRIFT_LENGTH
    positions[~found] = np.nan
    return positions, found


def _draw_electrons(n: int, rng: np.random.Generator) -> FloatArray:
    """Draw the number of electrons (n,) of primary collisions, at least 1 each."""
    low, high = tpc.COLLISION_ENERGIES
    power = 1.0 - tpc.SPECTRUM_EXPONENT
    share = rng.random(n) * (1.0 - (high / low) ** power)
    energy = low * (1.0 - share) ** (1.0 / power)
    return np.asarray(np.floor((energy - low) / tpc.PAIR_ENERGY) + 1.0)
