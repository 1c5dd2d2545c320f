"""Averages over showers, each with its error.

Which to use when:

- `energy_response`: mean and width of E_visible / E_incident in bins of the energy, the
  first figures that a physics analysis asks for; `fit_resolution` sums them up.
- `longitudinal_profile`, `lateral_profile`, `cell_spectrum`: averages, to be drawn.
"""

from dataclasses import dataclass, fields

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.calorimeter.observables import (
    check_cells,
    layer_edges,
    layer_energies,
)

ONE_SIGMA = 0.158655
"""Share of a normal distribution below one standard deviation below the mean."""

_WIDTH_ERROR = 0.962  # error of a width from quantiles, in widths: sqrt(0.925 / n)

RADIAL_BINS, SPECTRUM_BINS = 20, 60


@dataclass(frozen=True, kw_only=True)
class Response:
    """Response in m bins of the incident energy; every array is (m,).

    Attributes:
        energy: Mean incident energy.
        mean: Mean of E_visible / E_incident.
        mean_error: Standard error of the mean.
        resolution: Half of the central 68.3 % of the response over its median.
        resolution_error: Standard error of the resolution of a normal distribution.
        count: Number of showers.
    """

    energy: FloatArray
    mean: FloatArray
    mean_error: FloatArray
    resolution: FloatArray
    resolution_error: FloatArray
    count: FloatArray


@dataclass(frozen=True, kw_only=True)
class ResolutionFit:
    """Terms of sigma / E = a / sqrt(E) + b / E + c, added in quadrature.

    Attributes:
        stochastic: Term a, in the root of the unit of E.
        noise: Term b, in the unit of E.
        constant: Term c.
        chi2: Chi-squared of the fit.
        n_dof: Degrees of freedom: bins less terms that are not 0.
    """

    stochastic: float
    noise: float
    constant: float
    chi2: float
    n_dof: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean over showers in m bins.

    Attributes:
        edges: (m + 1,) Edges of the bins.
        mean: (m,) Mean over showers.
        error: (m,) Standard error of the mean.
    """

    edges: FloatArray
    mean: FloatArray
    error: FloatArray


def energy_edges(energies: ArrayLike, n_bins: int = 6) -> FloatArray:
    """Return edges of energy bins: around each energy if there are few, else in ln E.

    Args:
        energies: (n,) Energies above 0.
        n_bins: Number of bins where the energies are continuous.

    Example:
        >>> energy_edges([1.0, 1.0, 4.0]).round(2).tolist()
        [0.5, 2.0, 8.0]
    """
    e = np.asarray(energies, dtype=np.float64)
    values = np.unique(e)
    if len(values) > 2 * n_bins:
        edges = np.geomspace(values[0], values[-1], n_bins + 1)
        edges[-1] = np.nextafter(edges[-1], np.inf)
        edges[0] = values[0]
        return edges
    inner = np.sqrt(values[1:] * values[:-1])
    if not len(inner):
        return np.array([values[0] / 2, values[0] * 2])
    return np.concatenate(
        [[values[0] ** 2 / inner[0]], inner, [values[-1] ** 2 / inner[-1]]]
    )


def energy_response(
    visible: ArrayLike, incident: ArrayLike, edges: ArrayLike
) -> Response:
    """Return linearity and resolution in bins of the incident energy.

    Args:
        visible: (n,) Energies of the showers.
        incident: (n,) Energies of the particles, in the same unit.
        edges: (m + 1,) Edges of bins of the incident energy.
    """
    e = np.asarray(incident, dtype=np.float64)
    ratio = np.asarray(visible, dtype=np.float64) / e
    bounds = np.asarray(edges, dtype=np.float64)
    place = np.searchsorted(bounds, e, side="right") - 1
    rows = np.full((len(bounds) - 1, 6), np.nan)
    for i, row in enumerate(rows):
        r, energies = ratio[place == i], e[place == i]
        row[0], row[5] = np.sqrt(bounds[i] * bounds[i + 1]), len(r)
        if len(r) >= 2:
            low, middle, high = np.quantile(r, [ONE_SIGMA, 0.5, 1 - ONE_SIGMA])
            width = (high - low) / 2 / middle if middle > 0 else np.nan
            error = np.std(r, ddof=1) / np.sqrt(len(r))
            width_error = _WIDTH_ERROR * width / np.sqrt(len(r))
            row[:5] = energies.mean(), r.mean(), error, width, width_error
    names = [field.name for field in fields(Response)]
    return Response(**dict(zip(names, rows.T, strict=True)))


def fit_resolution(response: Response) -> ResolutionFit:
    """Fit (sigma / E)^2 = a^2 / E + b^2 / E^2 + c^2, with no term below 0.

    Bins without a resolution are left out. Source: Particle Data Group, review of
    particle detectors, section on calorimeters.
    """
    good = np.isfinite(response.resolution) & (response.resolution > 0)
    e, s = response.energy[good], response.resolution[good]
    error = 2 * s * response.resolution_error[good]
    if not len(e):
        terms = dict.fromkeys(("stochastic", "noise", "constant", "chi2"), np.nan)
        return ResolutionFit(**terms, n_dof=0)
    design = np.stack([1 / e, 1 / e**2, np.ones(len(e))], axis=1) / error[:, None]
    scale = np.linalg.norm(design, axis=0)
    squares, norm = scipy.optimize.nnls(design / scale, s**2 / error)
    a, b, c = np.sqrt(squares / scale)
    return ResolutionFit(
        stochastic=float(a),
        noise=float(b),
        constant=float(c),
        chi2=float(norm**2),
        n_dof=int(len(e) - np.count_nonzero(squares)),
    )


def longitudinal_profile(cells: ArrayLike, geometry: Geometry, view: str) -> Curve:
    """Return the mean energy of each layer of a view, in the unit of the cells.

    The edges are depths in mm where they are known and continuous, else layer numbers.
    """
    e = check_cells(cells, geometry)[:, geometry.view_slices[view]]
    energies = layer_energies(e, geometry.view(view))
    edges = layer_edges(geometry.view(view))
    if edges is None:
        edges = np.arange(energies.shape[1] + 1) - 0.5
    return _mean_curve(edges, energies)


def lateral_profile(
    cells: ArrayLike, geometry: Geometry, view: str, *, bins: int = RADIAL_BINS
) -> Curve:
    """Return the mean share of energy against the distance to the centre of energy.

    Args:
        cells: (n, n_cells) Energies of the cells.
        geometry: Geometry of the cells.
        view: Name of a view with several cells in a layer.
        bins: Number of equal bins of the distance, mm, up to the farthest cell.
    """
    part = geometry.view_slices[view]
    e = check_cells(cells, geometry)[:, part]
    at = geometry.centres[part][:, :2]
    whole = np.maximum(e.sum(axis=1, keepdims=True), 1e-30)
    middle = e @ at / whole
    reach = float(np.hypot(*(at - at.mean(axis=0)).T).max())
    edges = np.linspace(0, max(reach, 1e-9), bins + 1)
    share = np.empty((len(e), bins))
    for start in range(0, len(e), 500):
        rows = slice(start, start + 500)
        r = cdist(middle[rows], at)
        place = np.minimum(np.searchsorted(edges, r, side="right") - 1, bins - 1)
        flat = place + bins * np.arange(len(r))[:, None]
        sums = np.bincount(flat.ravel(), (e[rows] / whole[rows]).ravel(), bins * len(r))
        share[rows] = sums.reshape(len(r), bins)
    return _mean_curve(edges, share)


def cell_spectrum(cells: ArrayLike, edges: ArrayLike) -> Curve:
    """Return the mean number of cells of a shower in bins of their energy.

    Args:
        cells: (n, k) Energies of the cells.
        edges: (m + 1,) Edges above 0, so that empty cells are in no bin.
    """
    e = np.asarray(cells, dtype=np.float64)
    bounds = np.asarray(edges, dtype=np.float64)
    m = len(bounds) - 1
    place = np.searchsorted(bounds, e, side="right")
    place = np.where((place > m) | (place == 0), 0, place)
    flat = place + (m + 1) * np.arange(len(e))[:, None]
    counts = np.bincount(flat.ravel(), minlength=(m + 1) * len(e))
    return _mean_curve(bounds, counts.reshape(len(e), m + 1)[:, 1:].astype(float))


def spectrum_edges(cells: ArrayLike, bins: int = SPECTRUM_BINS) -> FloatArray:
    """Return edges in equal steps of ln(energy), for all but 10^-4 of the cells."""
    e = np.asarray(cells)
    positive = e[e > 0]
    if not len(positive):
        return np.geomspace(1.0, 10.0, bins + 1)
    low, high = np.quantile(positive, [1e-4, 1.0])
    return np.geomspace(low, max(high, 2 * low) * (1 + 1e-9), bins + 1)


def _mean_curve(edges: FloatArray, values: FloatArray) -> Curve:
    n = max(len(values), 1)
    error = values.std(axis=0, ddof=1 if n > 1 else 0) / np.sqrt(n)
    return Curve(edges=edges, mean=values.mean(axis=0), error=error)
