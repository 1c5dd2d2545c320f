"""Standard normal noise keyed by 64-bit integers: a row depends on its key alone.

Number j of row i is a hash of (key i, j), so that it changes neither with chunks nor
workers nor the order of the work. The hash is SplitMix64 (G. L. Steele, D. Lea,
C. H. Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014,
doi:10.1145/2660193.2660195, Fig. 13-17), whose 64-bit finalizer passes BigCrush on
consecutive integers. Normals come from the transform of G. E. P. Box and M. E. Muller
(Ann. Math. Statist. 29 (1958) 610), which uses a fixed number of bits.

Use `entry_keys` where rows have a fixed order, with `position_keys` where an entry has
several tracks. Use `column_keys` where rows may be skimmed, merged or re-ordered and
branches identify them.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

# Step of SplitMix64: the odd integer closest to 2^64 / golden ratio.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
# Number of words computed at a time: 128 KiB stay in the cache.
BLOCK_WORDS = 16_384
# Prefix of every hashed text. A change of the numbers needs another one.
DOMAIN = b"pidgan noise 1"


def keyed_normal(keys: UInt64Array, *, n_noise: int) -> npt.NDArray[np.float32]:
    """Return standard normal noise (n, n_noise) whose row i depends on `keys[i]` only.

    With words w_j = mix64(key + (j + 1) gamma) of two 32-bit halves (a, b), u = (a +
    1/2) / 2^32 and v = b / 2^32, the normals 2j and 2j + 1 of a row are sqrt(-2 ln u)
    cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v), at most sqrt(66 ln 2) = 6.76. A larger
    `n_noise` only adds numbers to a row.
    """
    if n_noise < 1:
        raise ValueError(f"n_noise is {n_noise}, expected at least 1")
    keys = np.ascontiguousarray(keys, dtype=np.uint64)
    n_words = (n_noise + 1) // 2
    steps = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA)
    # Filled column by column: each operation runs along memory.
    noise = np.empty((n_noise, len(keys)), dtype=np.float32)
    rows = max(1, BLOCK_WORDS // n_words)
    for first in range(0, len(keys), rows):
        block = keys[first : first + rows]
        # Without another hash, keys that differ by a multiple of gamma share words.
        words = _mix64(_mix64(block) + steps[:, np.newaxis])
        _box_muller(words, noise[:, first : first + rows])
    return noise.T


def entry_keys(*, seed: int, track: str, start: int, stop: int) -> UInt64Array:
    """Return the keys of entries `start` to `stop - 1` of a seed and a track."""
    if not 0 <= start <= stop:
        raise ValueError(f"entries {start} to {stop}, expected 0 <= start <= stop")
    entries = np.arange(start + 1, stop + 1, dtype=np.uint64)
    entries *= np.uint64(GOLDEN_GAMMA)
    entries += np.uint64(_digest(f"entry\0{seed}\0{track}"))
    return _mix64(entries)


def position_keys(keys: UInt64Array, counts: npt.NDArray[np.integer]) -> UInt64Array:
    """Return the key of each track from the keys (n,) and counts (n,) of its entry."""
    ends = np.cumsum(counts)
    place = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
    steps = (place.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN_GAMMA)
    return _mix64(_mix64(np.repeat(keys, counts)) + steps)


def column_keys(
    columns: Sequence[npt.NDArray[np.generic]], *, seed: int
) -> UInt64Array:
    """Return the key (n,) of each row, a hash of its columns (n,) and of the seed.

    Equal numbers give equal keys, whatever their type (a whole number may be stored as
    an integer, a bool or a float of any width), the sign of a zero or the payload of a
    NaN. The order of the columns matters.
    """
    if not columns:
        raise ValueError("column_keys needs at least one column")
    state = np.uint64(_digest(f"columns\0{seed}\0{len(columns)}"))
    keys = np.full(len(columns[0]), state, dtype=np.uint64)
    for column in columns:
        keys += np.uint64(GOLDEN_GAMMA)
        keys ^= _mix64(_bits(column))
        keys = _mix64(keys)
    return keys


def _mix64(z: UInt64Array) -> UInt64Array:
    """Return the finalizer of SplitMix64 (Stafford's variant 13) of each word."""
    shifted = z >> np.uint64(30)
    z = z ^ shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return z


def _box_muller(words: UInt64Array, noise: npt.NDArray[np.float32]) -> None:
    """Fill the rows of `noise` in pairs, one pair from each row of words."""
    radius = (words >> np.uint64(32)).astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2.0)
    # Rounding makes the largest u 1, and the smallest -2 ln u becomes -0.
    np.abs(radius, out=radius)
    np.sqrt(radius, out=radius)
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float32)
    angle *= np.float32(2.0 * np.pi * 2.0**-32)
    np.multiply(radius, np.cos(angle), out=noise[0::2])
    odd = len(noise) // 2
    np.multiply(radius[:odd], np.sin(angle[:odd]), out=noise[1::2])


def _digest(text: str) -> int:
    """Return 64 bits of a hash of a text."""
    digest = hashlib.blake2b(DOMAIN + b"\0" + text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _bits(column: npt.NDArray[np.generic]) -> UInt64Array:
    """Return values as 64-bit words, equal for equal numbers of any type."""
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise TypeError(
            f"a key column has shape {column.shape} and type {column.dtype}, expected "
            "(n,) of integers, bools or floats"
        )
    if column.dtype.kind == "f":
        values = column.astype(np.float64) + 0.0
        values[np.isnan(values)] = np.nan
        words = values.view(np.uint64)
        # An event number that some step stored as double stays the same number.
        whole = (values == np.rint(values)) & (values >= -(2.0**63))
        signed, unsigned = whole & (values < 2.0**63), whole & (values >= 2.0**63)
        unsigned &= values < 2.0**64
        words[signed] = values[signed].astype(np.int64).view(np.uint64)
        words[unsigned] = values[unsigned].astype(np.uint64)
        return words
    return column.astype(np.uint64)
