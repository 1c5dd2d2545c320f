"""Rows are sorted as `numpy.lexsort` does it, whatever the columns are."""

import numpy as np
import pytest

from pidgan.sample.sorting import sort_rows


def column(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    few = rng.integers(-3, 4, n)
    if kind == "flags":
        return few > 0
    if kind == "few":
        return few.astype(np.float32)
    if kind == "zeros":
        return rng.choice([-0.0, 0.0], n)
    if kind == "extreme":
        info = np.iinfo(np.int64)
        return rng.choice([info.min, -1, 0, 1, info.max], n)
    if kind == "large":
        return rng.choice(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), n)
    if kind == "infinite":
        return rng.choice([-np.inf, -1e300, -1e-320, 0, 1e-320, 1, np.inf], n)
    if kind == "nan":
        return rng.choice([-np.nan, np.nan, np.inf, 0], n)
    if kind == "doubles":
        return rng.normal(0, 1, n)
    if kind == "runs":
        return rng.integers(290_000, 290_009, n).astype(np.uint32)
    return rng.normal(0, 10, n).astype(kind)


KINDS = ["flags", "few", "zeros", "extreme", "large", "infinite", "doubles", "runs"]
KINDS += ["nan", "f2", "f4", "i1", "i2"]


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_lexsort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([1, 2, 3, 50, 1000]))
    chosen = rng.choice(KINDS, rng.integers(1, 6))
    columns = [column(kind, n, rng) for kind in chosen]
    copies = [array.copy() for array in columns]
    order, tied = sort_rows(columns)
    np.testing.assert_array_equal(order, np.lexsort(columns[::-1]))
    pairs = [(array[order[1:]], array[order[:-1]]) for array in columns]
    equal = [(a == b) | ((a != a) & (b != b)) for a, b in pairs]
    np.testing.assert_array_equal(tied, np.logical_and.reduce(equal))
    for array, copy in zip(columns, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
