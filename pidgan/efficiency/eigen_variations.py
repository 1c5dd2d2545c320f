"""Independent one-sigma shifts of many numbers that have a covariance."""

import numpy as np

from pidgan.arrays import FloatArray

EIGEN_SHARE = 0.99
"""Share of the variance that the eigen-variations represent."""

MAX_EIGEN = 40
"""Largest number of eigen-variations, whatever their share."""


def eigen_shifts(
    covariance: FloatArray, *, share: float = EIGEN_SHARE, most: int = MAX_EIGEN
) -> dict[str, FloatArray]:
    """Return the one-sigma shifts (n,) along the largest eigenvectors of (n, n).

    They are `calibration_1`, the largest, and so on, until they have a share of the
    variance, and `calibration_rest`, the remaining standard deviation of each number.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    # The sign of an eigenvector is free, and up is up on average.
    vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    found = np.cumsum(values) / values.sum() if values.sum() > 0 else np.ones(1)
    n = min(int(np.searchsorted(found, share)) + 1, most, len(values))
    sigma = np.sqrt(values)
    shifts = {f"calibration_{k + 1}": sigma[k] * vectors[:, k] for k in range(n)}
    shifts["calibration_rest"] = np.sqrt((vectors[:, n:] ** 2) @ values[n:])
    return shifts
