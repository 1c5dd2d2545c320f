"""Fit of the lateral profile of a GFlash-like parametrisation to images of showers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import scipy.optimize
import scipy.special

from pidgan.arrays import FloatArray
from pidgan.bundle.formulas import log
from pidgan.errors import PidganWarning
from pidgan.training.classical import sample_fits as fits
from pidgan.training.classical.gflash import (
    MOST_LESS,
    GFlash,
    distance_to_maximum,
)
from pidgan.training.classical.lateral_profile import normalise, spread

# Slopes of ln R_C, ln R_T and logit p in tau at the maximum, from the formulas of
# hep-ex/0001020. The fit starts there.
SLOPES = (0.83, -0.27, -1.7)
# Core and tail over the root mean square of the images, and logit p, of each start: a
# profile that is all core or all tail has minima of its own.
STARTS = ((0.3, 1.5, 2.0), (0.15, 0.8, 0.0), (0.6, 3.0, 2.0))
# Parameters that the images do not determine stay where they start, within a few of
# these: constants, slopes in tau and tau^2, slope in ln E.
WIDTHS = (2.0, 1.0, 0.5, 0.5)
FIT_NUMBERS = 2_000_000  # largest number of Gaussian integrals that a fit keeps
MOMENT_WEIGHT = 2.5  # weight of the second moment of an image, beside its cells
FEW = 100  # number of showers with which the best start is found
ROUNDS = 2  # number of fits to all showers, with the variances of the one before
STEPS = 500  # largest number of steps of a fit; some 50 are usual
TOLERANCE = 1e-8  # gradient at which a fit stops, in units of the sum of squares
SHARE_FLOOR = 1e-4  # variance of the share of a single spot
HIGHEST = 200.0  # largest 2 ln R of a step that goes too far


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Shares of the cells of a layer, with all numbers that do not change in a fit.

    Kernels (n, g k, cells) are those of k Gaussians at g depths.
    """

    widths: FloatArray
    u: FloatArray
    kernels: FloatArray
    share: FloatArray
    tau: FloatArray
    real: FloatArray
    weight: FloatArray
    square: FloatArray

    def take(self, n: int) -> "_Images":
        """Return those of the first n showers."""
        names = [field.name for field in fields(self) if field.name != "widths"]
        return replace(self, **{name: getattr(self, name)[:n] for name in names})

    def model(self, parameters: FloatArray) -> FloatArray:
        """Expected shares (n, cells)."""
        weights = _weights(parameters, self.widths, self.tau, self.u)[0]
        return np.asarray(normalise(self._sum(weights)))

    def squares(
        self, parameters: FloatArray, variance: FloatArray
    ) -> tuple[float, FloatArray]:
        """Half the sum of squares, and its gradient (3, 4).

        The squares are those of differences of cells, and of second moments, which
        physicists look at and the cells leave free, in standard deviations.
        """
        weights, slopes = _weights(parameters, self.widths, self.tau, self.u)
        image = self._sum(weights)
        whole = np.maximum(image.sum(axis=1, keepdims=True), 1e-30)
        found = image / whole
        rest, weight = found - self.real, self.weight / variance
        lever = self.square / (variance * self.square).sum(axis=1, keepdims=True)
        lever = MOMENT_WEIGHT * np.sqrt(self.weight) * lever
        moment = (rest * lever).sum(axis=1, keepdims=True)
        cost = 0.5 * float(np.sum(weight * rest**2) + np.sum(moment**2))
        # The chain of derivatives, backwards from the shares of cells.
        pull = weight * rest + lever * moment
        pull = (pull - (pull * found).sum(axis=1, keepdims=True)) / whole
        pull = (self.kernels @ pull[:, :, None]).reshape(weights.shape)
        pull = (slopes * pull * self.share[..., None]).sum(axis=-1)
        u = np.broadcast_to(self.u, self.tau.shape)
        powers = (np.ones_like(u), self.tau, self.tau**2, u)
        return cost, np.stack([(pull * x).sum(axis=(1, 2)) for x in powers], axis=1)

    def _sum(self, weights: FloatArray) -> FloatArray:
        """Sum (n, cells) of Gaussians with weights (n, g, k)."""
        shared = weights * self.share[..., None]
        return np.asarray((shared.reshape(len(shared), 1, -1) @ self.kernels)[:, 0])


def fit_lateral(
    start: GFlash,
    x: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray, FloatArray],
) -> FloatArray:
    """Least-squares fit of core and tail to the images of showers, (3, 4).

    Derivatives are exact, the sum of squares includes `WIDTHS`, and each fit ends in a
    minimum, that of the best start: rounding of the images moves it by as little.
    """
    geometry = start.geometry
    profile = shower[0] is not None
    deep = any(view.has_depth and view.has_plane for view in geometry.views)
    free = np.array([[True, profile, deep, True]] * 3)
    main, at = fits.main_view(geometry)
    rms = float(fits.centre(at, views[main])[1].mean())
    starts = [_first(rms, numbers, profile=profile) for numbers in STARTS]
    kept = _all_images(start, x, views, shower)
    some = [images.take(FEW) for images in kept]

    def descend(
        images: Sequence[_Images], first: FloatArray, variances: FloatArray
    ) -> tuple[float, FloatArray]:
        """Fit with the variances of shares of other parameters.

        A variance that follows the fit would draw it to the root mean square.
        """
        given = [part.model(variances) + SHARE_FLOOR for part in images]
        return _descend(images, given, first, starts[0], free)

    results = [descend(some, first, starts[0]) for first in starts]
    best = min(results, key=lambda result: result[0])[1]
    for _ in range(ROUNDS):
        best = descend(kept, best, best)[1]
    return best


def _all_images(
    start: GFlash,
    x: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray, FloatArray],
) -> list[_Images]:
    """Images of as many showers as `FIT_NUMBERS` allows, layer by layer."""
    geometry = start.geometry
    u = log(start.beam.column(x, "energy") / start.beam.energy)
    places = [
        (v, i)
        for v, view in enumerate(geometry.views)
        for i, layer in enumerate(view.layers)
        if layer.n_cells > 1
    ]
    each = sum(
        geometry.views[v].layers[i].n_cells * start.groups(v, i)[0].size
        for v, i in places
    ) * len(start.plane.widths)
    n = int(np.clip(FIT_NUMBERS // each, 20, len(x)))
    return [_images(start, place, x[:n], u[:n], views, shower) for place in places]


def _first(
    rms: float, numbers: tuple[float, float, float], *, profile: bool
) -> FloatArray:
    """Parameters (3, 4) at which a fit starts."""
    core, tail, logit = numbers
    first = np.zeros((3, 4))
    first[:, 0] = np.log(core * rms), np.log(tail * rms), logit
    if profile:
        first[:, 1] = SLOPES
    return first


def _descend(
    kept: Sequence[_Images],
    variances: Sequence[FloatArray],
    first: FloatArray,
    expected: FloatArray,
    free: FloatArray,
) -> tuple[float, FloatArray]:
    """Half the sum of squares of a minimum, and its parameters (3, 4)."""

    def full(values: FloatArray) -> FloatArray:
        parameters = first.copy()
        parameters[free] = values
        return parameters

    def squares(values: FloatArray) -> tuple[float, FloatArray]:
        parameters = full(values)
        pull = (parameters - expected) / WIDTHS
        cost, gradient = 0.5 * float(np.sum(pull[free] ** 2)), pull / WIDTHS
        for images, variance in zip(kept, variances, strict=True):
            more = images.squares(parameters, variance)
            cost, gradient = cost + more[0], gradient + more[1]
        return cost, gradient[free]

    start = squares(first[free])[0]
    found = scipy.optimize.minimize(
        squares,
        first[free],
        jac=True,
        method="BFGS",
        options={"gtol": TOLERANCE * start, "maxiter": STEPS},
    )
    if found.nit == STEPS:
        warnings.warn(
            f"the fit of lateral profiles did not converge in {STEPS} steps",
            PidganWarning,
            stacklevel=2,
        )
    return float(found.fun), full(found.x)


def _weights(
    parameters: FloatArray, widths: FloatArray, tau: FloatArray, u: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weights (n, g, k) as `lateral_weights`, and their derivatives (3, n, g, k).

    The derivatives are with respect to ln R_C, ln R_T and logit p.
    """
    core, tail, logit = (
        (a[0] + a[1] * tau + a[2] * tau * tau + a[3] * u)[..., None] for a in parameters
    )
    share = scipy.special.expit(logit)
    (a, da), (b, db) = (_shape(radius, widths) for radius in (core, tail))
    slopes = np.stack([share * da, (1 - share) * db, share * (1 - share) * (a - b)])
    return share * a + (1 - share) * b, slopes


def _shape(radius: FloatArray, widths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights (n, g, k) of Student's distribution, and their change with ln R."""
    ratio = (widths[-1] / widths) ** 2
    x = np.exp(np.minimum(2 * radius, HIGHEST)) * (0.5 / widths[-1] ** 2)
    beyond = np.minimum(x * (ratio - 1), MOST_LESS)
    shape = np.asarray(normalise(ratio * np.exp(-beyond)))
    slope = np.where(beyond < MOST_LESS, -2 * beyond, 0.0)
    return shape, shape * (slope - (shape * slope).sum(axis=-1, keepdims=True))


def _images(
    start: GFlash,
    place: tuple[int, int],
    x: FloatArray,
    u: FloatArray,
    views: Sequence[FloatArray],
    shower: tuple[FloatArray | None, FloatArray, FloatArray],
) -> _Images:
    """Cells of a layer of the first showers."""
    (v, i), n = place, len(x)
    slices, peak, shift = shower
    view, layer = start.geometry.views[v], start.geometry.views[v].layers[i]
    z, groups = start.groups(v, i)
    axis = start.beam.axis(x, z[None], shift[:n])
    whole = views[v][:n]
    e = whole[:, view.layer_slices[i]]
    # Squared distances to the axis at its mean depth.
    middle = np.stack([a.mean(axis=1) for a in axis], axis=1)
    square = ((layer.plane()[0][None] - middle[:, None]) ** 2).sum(axis=2)
    kernels = spread(layer, axis, start.plane.widths)
    return _Images(
        widths=start.plane.widths,
        u=u,
        kernels=np.asarray(kernels).reshape(n, -1, layer.n_cells),
        share=np.ones((1, 1)) if slices is None else normalise(slices[:n] @ groups),
        tau=np.asarray(distance_to_maximum(z, peak[:n], u)),
        real=np.asarray(normalise(e)),
        weight=e.sum(axis=1, keepdims=True) / whole.sum(axis=1, keepdims=True),
        square=square,
    )
