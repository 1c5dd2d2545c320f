"""Keyed noise: normal, independent, and a function of the key alone."""

import numpy as np
import pytest
from scipy import stats

from pidgan.bundle.noise import column_keys, entry_keys, keyed_normal, position_keys

GOLDEN_KEYS = [10274794360232982707, 8655446253603378914]
GOLDEN_NOISE = [[0.70861, -1.167141, 0.558509], [0.787811, 0.974563, -1.168102]]
GOLDEN_COLUMN_KEYS = [18372801034051465633, 10642016449121416943]


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    keys = entry_keys(seed=1, track="Kplus", start=0, stop=20_000)
    return keyed_normal(keys, n_noise=16)


def test_every_column_is_standard_normal(noise: np.ndarray) -> None:
    assert noise.dtype == np.float32
    pvalues = [stats.kstest(column, "norm").pvalue for column in noise.T]
    assert min(pvalues) > 0.01 / len(pvalues)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01


def test_the_tails_are_there() -> None:
    keys = entry_keys(seed=2, track="", start=0, stop=100_000)
    z = np.abs(keyed_normal(keys, n_noise=40))
    assert np.isfinite(z).all()
    for cut in (3.0, 4.0, 4.5):
        expected = z.size * 2 * stats.norm.sf(cut)
        assert abs(np.count_nonzero(z > cut) - expected) < 5 * np.sqrt(expected)


def test_columns_and_their_squares_are_uncorrelated(noise: np.ndarray) -> None:
    for values in (noise, noise**2):
        correlation = np.corrcoef(values.T) - np.eye(noise.shape[1])
        assert np.abs(correlation).max() < 5 / np.sqrt(len(noise))


def test_neighbouring_rows_are_uncorrelated(noise: np.ndarray) -> None:
    for lag in (1, 2, 64):
        product = (noise[lag:] * noise[:-lag]).mean(axis=0)
        assert np.abs(product).max() < 5 / np.sqrt(len(noise))


@pytest.mark.parametrize("step", [1, 2**32, 0x9E3779B97F4A7C15])
def test_poor_keys_make_good_noise(step: int) -> None:
    with np.errstate(over="ignore"):
        keys = np.arange(20_000, dtype=np.uint64) * np.uint64(step)
    z = keyed_normal(keys, n_noise=8)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    assert np.abs((z[1:, :-2] * z[:-1, 2:]).mean(axis=0)).max() < 5 / np.sqrt(20_000)
    assert len(np.unique(z)) > 0.95 * z.size


@pytest.mark.parametrize("n_noise", [1, 2, 5, 64])
def test_a_row_depends_on_its_key_alone(n_noise: int) -> None:
    keys = entry_keys(seed=3, track="pi", start=0, stop=3000)
    whole = keyed_normal(keys, n_noise=n_noise)
    order = np.random.default_rng(1).permutation(len(keys))
    np.testing.assert_array_equal(
        keyed_normal(keys[order], n_noise=n_noise), whole[order]
    )
    for first in range(40):
        for rows in (1, 3, 8, 17, 1000):
            part = slice(first, first + rows)
            np.testing.assert_array_equal(
                keyed_normal(keys[part], n_noise=n_noise), whole[part]
            )


def test_less_noise_is_the_first_of_more() -> None:
    keys = entry_keys(seed=3, track="pi", start=0, stop=100)
    more = keyed_normal(keys, n_noise=9)
    np.testing.assert_array_equal(keyed_normal(keys, n_noise=4), more[:, :4])


def test_golden_values() -> None:
    keys = entry_keys(seed=1, track="Kplus", start=0, stop=2)
    assert keys.tolist() == GOLDEN_KEYS
    np.testing.assert_allclose(
        keyed_normal(keys, n_noise=3), GOLDEN_NOISE, rtol=1e-5, atol=1e-6
    )
    columns = [np.array([5, -7]), np.array([0.5, np.nan])]
    assert column_keys(columns, seed=1).tolist() == GOLDEN_COLUMN_KEYS


def test_seed_track_and_entry_make_different_keys() -> None:
    keys = [
        entry_keys(seed=seed, track=track, start=0, stop=1000)
        for seed in (0, 1, -1)
        for track in ("", "Kplus", "Kminus", "1")
    ]
    assert len(np.unique(np.concatenate(keys))) == 12_000


def test_entry_keys_of_a_range_are_a_slice() -> None:
    whole = entry_keys(seed=1, track="K", start=0, stop=1000)
    part = entry_keys(seed=1, track="K", start=300, stop=555)
    np.testing.assert_array_equal(part, whole[300:555])
    far = entry_keys(seed=1, track="K", start=2**40, stop=2**40 + 3)
    assert len(set(far.tolist())) == 3


def test_column_keys_depend_on_values_not_on_types_or_order_of_rows() -> None:
    run = np.array([1, 1, 2, 1], dtype=np.int32)
    p = np.array([0.5, -0.0, 0.5, 0.5], dtype=np.float32)
    keys = column_keys([run, p], seed=1)
    assert keys[0] == keys[3]
    assert len(set(keys.tolist())) == 3
    wide = column_keys([run.astype(np.int64), np.abs(p).astype(np.float64)], seed=1)
    np.testing.assert_array_equal(wide, keys)
    np.testing.assert_array_equal(column_keys([run[::-1], p[::-1]], seed=1), keys[::-1])
    assert not np.isin(column_keys([run, p], seed=2), keys).any()
    assert not np.isin(column_keys([p, run], seed=1), keys).any()


@pytest.mark.parametrize("kind", ["f8", "f4", "u8", "u4", "i4", ">f8"])
def test_a_whole_number_has_one_key_in_every_type(kind: str) -> None:
    numbers = np.array([0, 1, 3, 2**20 + 1, 2**24], dtype=np.int64)
    stored = numbers.astype(kind)
    keys = column_keys([numbers], seed=1)
    assert column_keys([stored], seed=1).tolist() == keys.tolist()
    assert len(set(keys.tolist())) == len(keys)
    if kind in ("f8", "i4"):
        negative = column_keys([-numbers], seed=1).tolist()
        assert column_keys([(-numbers).astype(kind)], seed=1).tolist() == negative


def test_numbers_at_the_limits_of_integers_have_keys() -> None:
    large = np.array([2.0**63, 2.0**64 - 2048, -(2.0**63), 2.0**64, 1e300, np.inf])
    keys = column_keys([large], seed=1)
    assert len(set(keys.tolist())) == len(keys) - 1
    unsigned = np.array([2**63, 2**64 - 2048], dtype=np.uint64)
    assert column_keys([unsigned], seed=1).tolist() == keys[:2].tolist()
    signed = np.array([-(2**63)], dtype=np.int64)
    # As before, a word of 64 bits is a number with or without a sign.
    assert column_keys([signed], seed=1)[0] == keys[0] == keys[2]


def test_column_keys_of_a_grid_are_distinct() -> None:
    run, event = np.meshgrid(np.arange(300), np.arange(300))
    keys = column_keys([run.ravel(), event.ravel()], seed=1)
    assert len(np.unique(keys)) == keys.size
    z = keyed_normal(keys, n_noise=2)
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01


def test_misuse_is_named() -> None:
    keys = entry_keys(seed=1, track="", start=0, stop=1)
    with pytest.raises(ValueError, match="n_noise is 0"):
        keyed_normal(keys, n_noise=0)
    with pytest.raises(ValueError, match="expected 0 <= start <= stop"):
        entry_keys(seed=1, track="", start=3, stop=2)
    with pytest.raises(ValueError, match="at least one column"):
        column_keys([], seed=1)
    with pytest.raises(TypeError, match="key column has shape"):
        column_keys([np.array(["a"])], seed=1)


def test_positions_have_keys_of_their_own() -> None:
    entries = entry_keys(seed=1, track="T", start=0, stop=20_000)
    counts = np.random.default_rng(1).integers(0, 6, len(entries))
    keys = position_keys(entries, counts)
    assert len(keys) == counts.sum()
    assert len(np.unique(np.concatenate([keys, entries]))) == len(keys) + len(entries)
    noise = keyed_normal(keys, n_noise=2)
    correlation = np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(correlation) < 5 / np.sqrt(len(noise))


def test_the_key_of_a_position_knows_its_entry_only() -> None:
    entries = entry_keys(seed=1, track="T", start=0, stop=3)
    all_of_them = position_keys(entries, np.array([2, 0, 3]))
    assert (position_keys(entries[2:], np.array([3])) == all_of_them[2:]).all()
    assert (position_keys(entries[:1], np.array([1])) == all_of_them[:1]).all()
