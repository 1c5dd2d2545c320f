"""Fits to a sample of showers: scales, spots, and the axis of showers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray, IntArray
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import check_cells, layer_energies, moments
from pidgan.errors import DatasetError
from pidgan.training.classical.beam import Beam, fit_beam
from pidgan.training.classical.gflash import GFlash
from pidgan.training.classical.lateral_profile import widths_of
from pidgan.training.classical.normal_numbers import KNOTS
from pidgan.training.classical.principal_components import PCA

AXIS_STEPS = 6  # steps of Newton's method for an unknown axis
SCORING_STEPS = 30  # steps of a fit that converges quadratically
MOST_CHANGE = 5.0  # largest ln(mean) above all rows; E^-2 over two decades has 4
OUTER = 0.01  # share of the shower's energy below which a cell determines spots

_Model = TypeVar("_Model", GFlash, PCA)


@dataclass(frozen=True, kw_only=True)
class Showers:
    """Showers with energy in every view: conditions, cells by view, view energies."""

    beam: Beam
    x: FloatArray
    views: list[FloatArray]
    totals: FloatArray

    def take(self, rows: IntArray) -> "Showers":
        """Return some of the showers."""
        views = [part[rows] for part in self.views]
        return replace(self, x=self.x[rows], views=views, totals=self.totals[rows])

    @property
    def view_scale(self) -> tuple[float, ...]:
        """Energy of each view over the energy of the first."""
        return tuple((self.totals.sum(axis=0) / self.totals[:, 0].sum()).tolist())


def read_showers(
    cells: ArrayLike,
    conditions: ArrayLike,
    geometry: Geometry,
    *,
    names: Sequence[str],
    least: int,
) -> Showers:
    """Return the showers with energy in every view, at least `least` of them."""
    x = np.asarray(conditions, dtype=np.float64)
    e = check_cells(cells, geometry)
    beam = fit_beam(x, names)
    views = [e[:, geometry.view_slices[view.name]] for view in geometry.views]
    totals = np.stack([part.sum(axis=1) for part in views], axis=1)
    good = np.all(totals > 0, axis=1)
    if good.sum() < least:
        raise DatasetError(
            f"{good.sum()} showers with energy, expected {least} or more"
        )
    return Showers(
        beam=beam, x=x[good], views=[part[good] for part in views], totals=totals[good]
    )


def expected_cells(
    view: View, e: FloatArray, image: Callable[[int], FloatArray]
) -> FloatArray:
    """Return expected energies (n, n_cells) of a view with given layer energies."""
    layers = layer_energies(e, view)
    parts = [
        layers[:, [i]] * (image(i) if layer.n_cells > 1 else np.ones((1, 1)))
        for i, layer in enumerate(view.layers)
    ]
    return np.concatenate(parts, axis=1)


def main_view(geometry: Geometry) -> tuple[int, FloatArray]:
    """Return the number of the view with most cells, and their positions (k, 3), mm."""
    planes = [v for v, view in enumerate(geometry.views) if view.has_plane]
    main = max(planes, key=lambda v: geometry.views[v].n_cells)
    return main, geometry.centres[geometry.view_slices[geometry.views[main].name]]


def fit_positive(features: FloatArray, values: FloatArray) -> FloatArray:
    """Return coefficients (m,) of ln(mean) for values (n,) with a positive mean.

    The fit is a maximum of the likelihood of gamma distributions by Fisher's scoring,
    which uses the first moment only: single values may be negative.
    """
    mean = float(np.mean(values))
    found = np.zeros(features.shape[1])
    found[0] = np.log(max(mean, 1e-12))
    if mean <= 0:
        return found
    for _ in range(SCORING_STEPS):
        pull = values / np.exp(features @ found) - 1
        step = np.linalg.lstsq(features, pull, rcond=None)[0]
        found += np.clip(step, -0.5, 0.5)
    if np.max(features @ found) - np.log(mean) > MOST_CHANGE:
        # Single values with both signs do not tell how the mean changes.
        found[:] = 0
        found[0] = np.log(mean)
    return found


def fit_spot(features: FloatArray, e: FloatArray, expected: FloatArray) -> FloatArray:
    """Return coefficients (m,) of the logarithm of the energy of a spot.

    The variance 2 w E of cells (n, k) away from the axis gives them, as fluctuations of
    the profile itself are small there.
    """
    whole = e.sum(axis=1, keepdims=True)
    outer = (expected < OUTER * whole) & (expected > 1e-3 * OUTER * whole)
    pulls = (e - expected) ** 2 / np.where(outer, expected, 1.0)
    unit = (pulls * outer).sum(axis=1) / np.maximum(2 * outer.sum(axis=1), 1)
    return fit_positive(features, unit)


def centre(at: FloatArray, e: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return centres of energy and widths in x and y, (n, 2) each, mm."""
    x, y = moments(e, at[:, 0]), moments(e, at[:, 1])
    return np.stack([x[0], y[0]], axis=1), np.stack([x[1], y[1]], axis=1)


def fit_plane(
    model: _Model,
    showers: Showers,
    *,
    fit: Callable[[_Model, FloatArray], _Model],
    image: Callable[[_Model, FloatArray, int, int], FloatArray],
) -> tuple[_Model, FloatArray, FloatArray]:
    """Fit lateral profiles, and the fluctuations of the axis and of cells.

    `image` gives shares of the cells of layer i of view v, and `fit` a model, for given
    shifts (n, 2) of the axis, which are fitted too if no condition gives the axis. The
    result is the model, the shifts, and expected energies in the main view.
    """
    geometry, views = model.geometry, showers.views
    main, at = main_view(geometry)
    real = views[main]
    origin = centre(at, real)[0].mean(axis=0)
    beam = replace(model.beam, origin=tuple(origin.tolist()))
    plane = replace(model.plane, widths=widths_of(geometry))
    model = replace(model, beam=beam, plane=plane)

    def expected(model: _Model, shift: FloatArray, v: int) -> FloatArray:
        return expected_cells(
            geometry.views[v], views[v], lambda i: image(model, shift, v, i)
        )

    shift: FloatArray = np.zeros((len(real), 2))
    hidden: FloatArray = np.empty((2, 0))
    if "x0" not in beam.names:
        shift = centre(at, real)[0] - beam.origin
        first = fit(model, shift)
        shift = _find_axis(at, real, lambda moved: expected(first, moved, main), shift)
        hidden = np.quantile(shift, scipy.special.ndtr(KNOTS), axis=0).T
    model = fit(model, shift)
    images = [expected(model, shift, v) for v in range(len(views))]
    features = beam.features(showers.x)
    spot = np.stack(
        [
            fit_spot(features, e, f) if view.has_plane else np.zeros(features.shape[1])
            for view, e, f in zip(geometry.views, views, images, strict=True)
        ]
    )
    step = float(plane.widths[0])
    compared = (real, images[main], expected(model, shift + step, main))
    jitter = fit_jitter(features, at, compared, step=step, spot=spot[main])
    plane = replace(plane, cell_spot=spot, jitter=jitter, hidden=hidden)
    return replace(model, plane=plane), shift, images[main]


def _find_axis(
    at: FloatArray,
    real: FloatArray,
    image: Callable[[FloatArray], FloatArray],
    shift: FloatArray,
) -> FloatArray:
    """Shift (n, 2) of the axis that gives the centre of energy, by Newton's method."""
    wanted = centre(at, real)[0]
    # An axis beyond the outermost cells does not move the centre of energy.
    low, high = at[:, :2].min(axis=0), at[:, :2].max(axis=0)
    step = 0.02 * float(np.max(high - low))
    for _ in range(AXIS_STEPS):
        found = centre(at, image(shift))[0]
        slope = (centre(at, image(shift + step))[0] - found) / step
        change = (wanted - found) / np.maximum(slope, 0.2)
        shift = np.clip(shift + np.clip(change, -3 * step, 3 * step), low, high)
    return shift


def fit_jitter(
    features: FloatArray,
    at: FloatArray,
    images: tuple[FloatArray, FloatArray, FloatArray],
    *,
    step: float,
    spot: FloatArray,
) -> FloatArray:
    """Return coefficients (m,) of ln(standard deviation) of the axis, mm.

    Images (n, k) are real, expected, and expected with the axis moved by `step`.
    """
    real, expected, moved = images
    middle, width = centre(at, expected)
    # The centre of energy follows the axis less than one to one, as cells are wide.
    slope = max(float((centre(at, moved)[0] - middle).mean()) / step, 0.1)
    rest = (centre(at, real)[0] - middle) / slope
    unit = np.exp(features @ spot)[:, None]
    noise = 2 * unit / real.sum(axis=1, keepdims=True) * (width / slope) ** 2
    return fit_positive(features, np.mean(rest**2 - noise, axis=1)) / 2
