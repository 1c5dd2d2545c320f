"""Responses of a plane of pads: image moments, and their profiles in the conditions.

A response is an image, amplitudes against pad and time bin. Six moments sum it up. A
profile gives mean and standard deviation of a moment in bins of a condition, and a chi2
compares the profiles of two samples at mean +- deviation, as in A. Maevskiy et al. (TPC
of MPD), arXiv:2012.04595, Sec. 4. `chi2_floor` gives the chi2 of two real samples.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arguments import checked
from pidgan.arrays import FloatArray

MOMENTS = ("pad_centre", "time_centre", "pad_width", "time_width", "covariance", "sum")
"""Names of the moments; widths are variances, all in units of a pad or a time bin."""

N_BINS = 19  # of a profile, as in arXiv:2012.04595
MIN_ROWS = 8  # smallest number of responses of a bin that counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Mean and standard deviation of a moment in bins (m,) with edges (m + 1,).

    They are NaN in bins with fewer than `MIN_ROWS` responses.
    """

    edges: FloatArray
    mean: FloatArray
    deviation: FloatArray
    mean_error: FloatArray
    deviation_error: FloatArray
    rows: FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chi2:
    """A chi2 with the number of its terms, and its parts by moment."""

    value: float
    terms: int
    by_moment: dict[str, float]


@checked
def image_moments(images: ArrayLike) -> FloatArray:
    """Return centres, variances, covariance and sum of each image.

    With amplitudes a_ij of pad i and time bin j and p_ij = a_ij / sum a:
    sum p i, sum p j, sum p i^2 - (sum p i)^2, sum p j^2 - (sum p j)^2,
    sum p i j - (sum p i)(sum p j), and sum a.

    Args:
        images: (n, pads, time bins) Amplitudes, none negative.

    Returns:
        (n, 6) Moments in the order of `MOMENTS`; those of empty images are NaN, except
        for the sum.

    Raises:
        ValueError: The number of axes is not 3, or an amplitude is negative or NaN.

    Example:
        >>> image_moments([[[0, 0], [1, 1]]])[0].tolist()
        [1.0, 0.5, 0.0, 0.25, 0.0, 2.0]
    """
    return _moments(_checked_images(images, "images"))


def _checked_images(images: ArrayLike, name: str) -> FloatArray:
    """Return amplitudes (n, pads, time bins), or raise a ValueError."""
    a = np.asarray(images, dtype=np.float64)
    if a.ndim != 3 or not a.size:
        raise ValueError(f"{name} has shape {a.shape}, expected (n, pads, time bins)")
    if not (np.all(a >= 0.0) and np.isfinite(a).all()):
        raise ValueError(f"{name} has amplitudes that are negative or not finite")
    return a


def _moments(a: FloatArray) -> FloatArray:
    total = a.sum(axis=(1, 2))
    p = a / np.where(total > 0.0, total, np.nan)[:, None, None]
    i, j = (np.arange(size, dtype=np.float64) for size in a.shape[1:])
    pads, times = p.sum(axis=2), p.sum(axis=1)
    pad, time = pads @ i, times @ j
    both = np.einsum("nij,i,j->n", p, i, j)
    widths = pads @ i**2 - pad**2, times @ j**2 - time**2
    return np.stack([pad, time, *widths, both - pad * time, total], axis=1)


def profile(x: ArrayLike, values: ArrayLike, edges: ArrayLike) -> Profile:
    """Return mean and deviation of a moment (n,) in bins of a condition (n,).

    Rows with NaN do not count, and the last bin includes its upper edge. The error of
    the deviation s is sqrt((m4 - s^4) / n) / (2 s), m4 the fourth central moment
    (H. Cramer, Mathematical Methods of Statistics (1946), Sec. 28.2).
    """
    x, values, edges = (np.asarray(v, dtype=np.float64) for v in (x, values, edges))
    place = np.searchsorted(edges, x, side="right") - 1
    place[x == edges[-1]] = len(edges) - 2
    rows = np.full((5, len(edges) - 1), np.nan)
    for b in range(len(edges) - 1):
        y = values[(place == b) & np.isfinite(values)]
        rows[4, b] = len(y)
        if len(y) < MIN_ROWS:
            continue
        mean, s = y.mean(), y.std()
        m4 = np.mean((y - mean) ** 4)
        error = np.sqrt(max(m4 - s**4, 0.0) / len(y)) / (2.0 * s) if s > 0 else 0.0
        rows[:4, b] = mean, s, s / np.sqrt(len(y) - 1), error
    names = ("mean", "deviation", "mean_error", "deviation_error", "rows")
    return Profile(edges=edges, **dict(zip(names, rows, strict=True)))


@checked
def moments_chi2(
    real: ArrayLike,
    generated: ArrayLike,
    conditions: ArrayLike,
    generated_conditions: ArrayLike | None = None,
    *,
    bins: int = N_BINS,
) -> Chi2:
    """Compare the profiles of all moments against all conditions.

    chi2 = sum over moments, conditions, bins and signs of
    (delta mean +- delta deviation)^2 / (sum of the four squared errors).

    Args:
        real: (n, pads, time bins) Real responses.
        generated: (m, pads, time bins) Generated responses.
        conditions: (n, k) Conditions of the real responses; constant ones are left out.
        generated_conditions: (m, k) Conditions of the generated responses; None means
            those of the real ones.
        bins: Number of bins of each profile, of equal width over the real conditions.

    Raises:
        ValueError: No condition varies.
    """
    a, b = _checked_images(real, "real"), _checked_images(generated, "generated")
    x, x_g = _columns(conditions, len(a), "conditions"), generated_conditions
    x_g = _columns(x if x_g is None else x_g, len(b), "generated_conditions")
    if x_g.shape[1] != x.shape[1]:
        raise ValueError(
            f"generated_conditions has {x_g.shape[1]} columns, expected {x.shape[1]}"
        )
    y, y_g = _moments(a), _moments(b)
    varying = [k for k in range(x.shape[1]) if x[:, k].min() < x[:, k].max()]
    if not varying:
        raise ValueError("every condition is constant; a profile needs one that varies")
    by_moment = dict.fromkeys(MOMENTS, 0.0)
    terms = 0
    for k in varying:
        edges = np.linspace(x[:, k].min(), x[:, k].max(), bins + 1)
        for m, name in enumerate(MOMENTS):
            one = profile(x[:, k], y[:, m], edges)
            two = profile(x_g[:, k], y_g[:, m], edges)
            error = sum(p.mean_error**2 + p.deviation_error**2 for p in (one, two))
            mean, deviation = two.mean - one.mean, two.deviation - one.deviation
            both = ((mean + deviation) ** 2 + (mean - deviation) ** 2) / error
            counted = np.isfinite(both)
            by_moment[name] += float(both[counted].sum())
            terms += 2 * int(counted.sum())
    return Chi2(value=sum(by_moment.values()), terms=terms, by_moment=by_moment)


@checked
def chi2_floor(
    images: ArrayLike,
    conditions: ArrayLike,
    *,
    splits: int = 5,
    bins: int = N_BINS,
    seed: int = 1,
) -> Chi2:
    """Return the chi2 of random half against half of real responses, mean of splits.

    Args:
        images: (n, pads, time bins) Real responses.
        conditions: (n, k) Conditions of the responses.
        splits: Number of independent ways to halve the sample.
        bins: Number of bins of each profile.
        seed: Seed of the splits.
    """
    images = _checked_images(images, "images")
    x = _columns(conditions, len(images), "conditions")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(len(x))
        a, b = order[: len(x) // 2], order[len(x) // 2 :]
        found.append(moments_chi2(images[a], images[b], x[a], x[b], bins=bins))
    return Chi2(
        value=float(np.mean([c.value for c in found])),
        terms=round(float(np.mean([c.terms for c in found]))),
        by_moment={
            name: float(np.mean([c.by_moment[name] for c in found])) for name in MOMENTS
        },
    )


@checked
def amplitude_spectrum(
    images: ArrayLike, edges: ArrayLike, *, threshold: float = 1.0
) -> tuple[FloatArray, float]:
    """Return the spectrum of log10(1 + a) and the share of amplitudes that are zero.

    Args:
        images: Amplitudes a in any shape.
        edges: Edges of the bins in log10(1 + a).
        threshold: Value below which an amplitude counts as zero (arXiv:2012.04595,
            Sec. 3).

    Returns:
        The share of all amplitudes in each bin, zeros left out, and the share of zeros.

    Example:
        >>> amplitude_spectrum([0.0, 0.5, 9.0, 99.0], [0.5, 1.5, 2.5])
        (array([0.25, 0.25]), 0.5)
    """
    a, e = np.ravel(np.asarray(images, np.float64)), np.asarray(edges, np.float64)
    if not a.size or not np.isfinite(a).all():
        raise ValueError("images has no amplitudes, or some that are not finite")
    if e.ndim != 1 or len(e) < 2 or not np.all(np.diff(e) > 0):
        raise ValueError(f"edges has shape {e.shape}, expected 2 or more that rise")
    seen = a[a >= threshold]
    counts, _ = np.histogram(np.log10(1.0 + seen), e)
    return counts / len(a), 1.0 - len(seen) / len(a)


def _columns(conditions: ArrayLike, n: int, name: str) -> FloatArray:
    """Return columns (n, k), or raise a ValueError."""
    x = np.asarray(conditions, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) != n or not np.isfinite(x).all():
        raise ValueError(
            f"{name} has shape {x.shape}, expected ({n}, k) with finite numbers"
        )
    return x
