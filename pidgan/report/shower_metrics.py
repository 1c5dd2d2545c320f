"""Averages over showers with errors, and how alike two samples of showers are.

Which to use when:

- `energy_response`: mean and width of E_visible / E_incident in bins of the energy, the
  first figures that a physics analysis asks for; `fit_resolution` sums them up.
- `longitudinal_profile`, `lateral_profile`, `cell_spectrum`: averages, to be drawn.
- `separation`: one observable by its histogram, from 0 to 1.
- `frechet_distance` (FPD) and `kernel_distance` (KPD): many observables without
  training. FPD serves the comparison with papers, KPD sees more than two moments.
- `neighbour_figures` (PRDC): precision and density say whether single showers are
  plausible, recall and coverage whether all kinds of showers are generated.
- a classifier, `metrics.c2st` on `high_level` or `low_level`: the most sensitive.

Features are (n, d) of real and (m, d) of generated showers. Samples of equal
distributions do not give 0. `shower_validation` puts the floor, the same figure for
real showers against real showers, beside each.
"""

from dataclasses import dataclass, fields

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from pidgan.arrays import FloatArray
from pidgan.calorimeter import observables
from pidgan.calorimeter.geometry import Geometry
from pidgan.report.metrics import separation_power

ONE_SIGMA = 0.158655  # of a normal distribution lies below mean - deviation
_WIDTH_ERROR = 0.962  # error of a width from quantiles, in widths: sqrt(0.925 / n)
RADIAL_BINS, SPECTRUM_BINS = 20, 60


@dataclass(frozen=True, kw_only=True)
class Response:
    """Response E_visible / E_incident in m bins of the mean incident energy, (m,) each.

    The resolution is half of the central 68.3 % of the response over its median; its
    error is that of a normal distribution.
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

    They are the stochastic term a, the noise b and the constant c. The degrees of
    freedom are the bins less the terms that are not 0.
    """

    stochastic: float
    noise: float
    constant: float
    chi2: float
    n_dof: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean over showers (m,) with its standard error, in bins with edges (m + 1,)."""

    edges: FloatArray
    mean: FloatArray
    error: FloatArray


def energy_edges(energies: ArrayLike, n_bins: int = 6) -> FloatArray:
    """Return edges of energy bins: around each of a few energies, else in ln E."""
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
    """Return linearity and resolution in bins of the incident energy."""
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
    e = observables.check_cells(cells, geometry)[:, geometry.view_slices[view]]
    energies = observables.layer_energies(e, geometry.view(view))
    return mean_curve(depth_edges(geometry, view), energies)


def depth_edges(geometry: Geometry, view: str) -> FloatArray:
    """Return edges of layers, mm; half-integer numbers where they are unknown."""
    edges = observables.layer_edges(geometry.view(view))
    return (
        np.arange(len(geometry.view(view).layers) + 1) - 0.5 if edges is None else edges
    )


def lateral_profile(cells: ArrayLike, geometry: Geometry, view: str) -> Curve:
    """Return the mean share of energy against the distance to the centre of energy."""
    e = observables.check_cells(cells, geometry)[:, geometry.view_slices[view]]
    edges = radial_edges(geometry, view)
    return mean_curve(edges, lateral_shares(e, geometry, view))


def radial_edges(geometry: Geometry, view: str) -> FloatArray:
    """Return edges of distances from the middle to the farthest cell of a view, mm."""
    at = geometry.centres[geometry.view_slices[view]][:, :2]
    reach = float(np.hypot(*(at - at.mean(axis=0)).T).max())
    return np.linspace(0, max(reach, 1e-9), RADIAL_BINS + 1)


def lateral_shares(e: FloatArray, geometry: Geometry, view: str) -> FloatArray:
    """Return each shower's shares (n, bins) of energy against the distance."""
    at = geometry.centres[geometry.view_slices[view]][:, :2]
    bins, edges = RADIAL_BINS, radial_edges(geometry, view)
    whole = np.maximum(e.sum(axis=1, keepdims=True), 1e-30)
    middle = e @ at / whole
    share = np.empty((len(e), bins))
    for start in range(0, len(e), 500):
        rows = slice(start, start + 500)
        r = cdist(middle[rows], at)
        place = np.minimum(np.searchsorted(edges, r, side="right") - 1, bins - 1)
        flat = place + bins * np.arange(len(r))[:, None]
        sums = np.bincount(flat.ravel(), (e[rows] / whole[rows]).ravel(), bins * len(r))
        share[rows] = sums.reshape(len(r), bins)
    return share


def cell_spectrum(cells: ArrayLike, edges: ArrayLike) -> Curve:
    """Return the mean number of cells of a shower in bins of their energy."""
    bounds = np.asarray(edges, dtype=np.float64)
    return mean_curve(bounds, spectrum_counts(np.asarray(cells), bounds))


def spectrum_counts(cells: FloatArray, edges: FloatArray) -> FloatArray:
    """Return each shower's number of cells (n, bins) in bins of their energy."""
    e, m = np.asarray(cells, dtype=np.float64), len(edges) - 1
    rows, columns = np.nonzero(e >= edges[0])  # most cells are empty
    place = np.searchsorted(edges, e[rows, columns], side="right") - 1
    inside = place < m
    flat = place[inside] + m * rows[inside]
    counts = np.bincount(flat, minlength=m * len(e)).reshape(len(e), m)
    return counts.astype(float)


def spectrum_edges(cells: ArrayLike, bins: int = SPECTRUM_BINS) -> FloatArray:
    """Return edges in equal steps of ln(energy), for all but 10^-4 of the cells."""
    e = np.asarray(cells)
    positive = e[e > 0]
    if not len(positive):
        return np.geomspace(1.0, 10.0, bins + 1)
    low, high = np.quantile(positive, [1e-4, 1.0])
    return np.geomspace(low, max(high, 2 * low) * (1 + 1e-9), bins + 1)


def mean_curve(edges: FloatArray, values: FloatArray) -> Curve:
    """Return the mean of values (n, bins) of showers."""
    n = max(len(values), 1)
    error = values.std(axis=0, ddof=1 if n > 1 else 0) / np.sqrt(n)
    return Curve(edges=edges, mean=values.mean(axis=0), error=error)


# Bins between the 0.1 % and 99.9 % quantiles of the real values; one on each side holds
# the rest.
SEPARATION_BINS = 50
# Numbers of sample sizes, batches and rows, those of `jetnet.evaluation`.
FPD_POINTS, FPD_BATCHES = 10, 20
KPD_BATCHES, KPD_ROWS = 10, 5000

# Neighbour of PRDC that sets the radius, and most rows; their distances take 72 MB.
NEIGHBOURS, NEIGHBOUR_ROWS = 5, 3000


def separation(real: ArrayLike, generated: ArrayLike) -> float:
    """Return the separation power of one observable, (n,) against (m,).

    It is `metrics.separation_power` in `SEPARATION_BINS` bins, which the real values
    set. Where there are few different values, each has a bin of its own.
    """
    y = np.asarray(real, dtype=np.float64)
    g = np.asarray(generated, dtype=np.float64)
    values = np.unique(y)
    if len(values) <= SEPARATION_BINS:
        inner = (values[1:] + values[:-1]) / 2
        around = [values[0] - 1e-9 - 1e-6 * abs(values[0])]
        inner = np.concatenate([around, inner, [values[-1] * (1 + 1e-6) + 1e-9]])
    else:
        low, high = np.quantile(y, [0.001, 0.999])
        inner = np.linspace(low, high, SEPARATION_BINS + 1)
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    return separation_power(np.histogram(y, edges)[0], np.histogram(g, edges)[0])


def high_level(
    cells: ArrayLike, geometry: Geometry, incident: ArrayLike, *, per_layer: bool = True
) -> dict[str, FloatArray]:
    """Return the observables that are compared: ratios of energies, no energies."""
    found = observables.observables(cells, geometry, incident, per_layer=per_layer)
    return {
        name: values
        for name, values in found.items()
        if not name.rpartition(".")[2].startswith(("total", "layer["))
    }


def low_level(cells: ArrayLike, incident: ArrayLike) -> FloatArray:
    """Return cells over the incident energy, as classifiers of the CaloChallenge do."""
    return np.asarray(cells) / np.asarray(incident, dtype=np.float64)[:, None]


def frechet_distance(
    real: ArrayLike, generated: ArrayLike, *, seed: int = 1
) -> tuple[float, float]:
    """Return the Frechet physics distance (FPD) and its error.

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^1/2) of features, each divided by the
    largest absolute real value. It is averaged over batches of N rows and extrapolated
    linearly in 1 / N to infinite N. Source: Kansal et al., arXiv:2211.10295, section
    III, and `jetnet.evaluation.fpd`, in which N goes from 20,000 to 50,000, with
    repetition. Here N goes from a fifth to nine tenths of the smaller sample, without
    repetition: repeated rows would add a distance that does not vanish with 1 / N.
    """
    x, y = _normalised(real, generated)
    n = min(len(x), len(y))
    rng = np.random.default_rng(seed)
    inverse = np.linspace(5 / n, 10 / (9 * n), FPD_POINTS)
    sizes = np.maximum((1 / inverse).astype(int), 2)
    values = []
    for size in sizes:
        batch = []
        for _ in range(FPD_BATCHES):
            a, b = (s[rng.choice(len(s), size, replace=False)] for s in (x, y))
            batch.append(_frechet(a, b))
        values.append(np.mean(batch))
    found, covariance = scipy.optimize.curve_fit(
        lambda t, offset, slope: offset + slope * t,
        1 / sizes,
        values,
        p0=(max(float(values[-1]), 1e-12), 1.0),
        bounds=(0, np.inf),
    )
    return float(found[0]), float(np.sqrt(covariance[0, 0]))


def kernel_distance(
    real: ArrayLike, generated: ArrayLike, *, seed: int = 1
) -> tuple[float, float]:
    """Return the kernel physics distance (KPD) and its error.

    The distance is the unbiased squared maximum mean discrepancy with the kernel
    (x.y / d + 1)^4 of features, each divided by the largest absolute real value: the
    median over 10 batches of up to 5000 rows. The error is half the range of their
    central 68 %. Source: Kansal et al., arXiv:2211.10295, section III, and
    `jetnet.evaluation.kpd`.
    """
    x, y = _normalised(real, generated)
    rng = np.random.default_rng(seed)
    values = []
    size = min(KPD_ROWS, len(x), len(y))
    for _ in range(KPD_BATCHES):
        a, b = (s[rng.choice(len(s), size)] for s in (x, y))
        values.append(_polynomial_mmd(a, b))
    low, high = np.quantile(values, [0.16275, 0.83725])
    return float(np.median(values)), float((high - low) / 2)


def neighbour_figures(
    real: ArrayLike, generated: ArrayLike, *, seed: int = 1
) -> dict[str, float]:
    """Return precision, recall, density and coverage (PRDC).

    B(x) is the ball around x up to its fifth neighbour in its own sample. Precision is
    the share of generated rows in any B(real), recall the share of real rows in any
    B(generated), density the mean number of B(real) that hold a generated row, over 5,
    and coverage the share of B(real) that hold a generated row. Source: Naeem et al.,
    arXiv:2002.09797, Eqs. 3 to 6. Columns are divided by the standard deviation of the
    real ones. Equal distributions have density 1 and coverage 1 - 2^-5.
    """
    x, y = (np.asarray(s, dtype=np.float64) for s in (real, generated))
    rng = np.random.default_rng(seed)
    size = min(NEIGHBOUR_ROWS, len(x), len(y))
    x, y = (s[rng.permutation(len(s))[:size]] for s in (x, y))
    scale = x.std(axis=0)
    scale[scale == 0] = 1.0
    x, y = x / scale, y / scale
    real_radius, generated_radius = _radius(x), _radius(y)
    distance = cdist(x, y)
    inside = distance < real_radius[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((distance < generated_radius).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / NEIGHBOURS),
        "coverage": float(inside.any(axis=1).mean()),
    }


def correlation_difference(real: ArrayLike, generated: ArrayLike) -> float:
    """Return the root mean square difference of the correlations of columns."""
    first, second = (_correlation(np.asarray(s)) for s in (real, generated))
    upper = np.triu_indices(len(first), k=1)
    return float(np.sqrt(np.mean((first - second)[upper] ** 2)))


def _correlation(columns: FloatArray) -> FloatArray:
    """Correlations of columns; 0 for a column that does not vary."""
    centred = columns - columns.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    centred = centred / np.where(size > 0, size, 1.0)
    return np.asarray(centred.T @ centred)


def _normalised(real: ArrayLike, generated: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = (np.asarray(s, dtype=np.float64) for s in (real, generated))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features of shapes {x.shape} and {y.shape} do not fit")
    scale = np.abs(x).max(axis=0)
    scale[scale == 0] = 1.0
    return x / scale, y / scale


def _frechet(a: FloatArray, b: FloatArray) -> float:
    """Frechet distance of the normal distributions with two samples' moments."""
    # tr (S_1 S_2)^1/2 is the sum of the roots of the eigenvalues of R S_2 R, with R the
    # root of S_1: symmetric, so that rounding cannot make it complex.
    difference = a.mean(axis=0) - b.mean(axis=0)
    s1, s2 = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    value, vector = np.linalg.eigh(s1)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    eigenvalues = np.linalg.eigvalsh(root @ s2 @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    return float(difference @ difference + np.trace(s1) + np.trace(s2) - 2 * cross)


def _polynomial_mmd(a: FloatArray, b: FloatArray) -> float:
    def mean(x: FloatArray, y: FloatArray, *, same: bool) -> float:
        kernel = x @ y.T / x.shape[1] + 1.0
        kernel *= kernel  # a power is twenty times as slow
        kernel *= kernel
        if not same:
            return float(kernel.mean())
        n = len(x)
        return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))

    return mean(a, a, same=True) + mean(b, b, same=True) - 2 * mean(a, b, same=False)


def _radius(x: FloatArray) -> FloatArray:
    """Distance (n,) to the fifth neighbour; the row itself is the nearest of all."""
    return np.asarray(np.partition(cdist(x, x), NEIGHBOURS, axis=1)[:, NEIGHBOURS])
