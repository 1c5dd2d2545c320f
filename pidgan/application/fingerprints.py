"""Fingerprints of branches and of pairs of them, which change with their values.

They are sums over rows of numbers mixed from the values, modulo 2^64: those of parts
add up to those of the whole, and the order of all rows does not matter.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import awkward as ak
import numpy as np

MOST_PAIRED = 6
"""Conditions of a track that are paired with each generated branch."""

BLOCK = 1 << 14
"""Values mixed at a time, which stay in the cache of a core."""

# The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), one step shorter.
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_MODULUS = 1 << 64

K = TypeVar("K")


def fingerprint(values: Any) -> int:
    """Return a number that changes with any value, but not with their order.

    The fingerprints of two parts add up to that of the whole, modulo 2^64.
    """
    flat, total = _flat(values), 0
    for first in range(0, len(flat), BLOCK):
        total += int(_mix(flat[first : first + BLOCK]).sum())
    return total % _MODULUS


def _flat(values: Any) -> Any:
    """Return the numbers of a branch in one axis."""
    if not isinstance(values, np.ndarray):
        values = ak.flatten(values, axis=None)
    return np.asarray(values).reshape(-1)


def _mix(values: Any, bits: Any = None, space: Any = None) -> Any:
    """Return each number as 64 bits that look random, in arrays that are given."""
    bits = np.empty(len(values), np.uint64) if bits is None else bits[: len(values)]
    space = np.empty_like(bits) if space is None else space[: len(values)]
    bits.view(np.float64)[:] = values
    bits *= _FIRST
    bits ^= np.right_shift(bits, _HALF, out=space)
    bits *= _SECOND
    bits ^= np.right_shift(bits, _HALF, out=space)
    return bits


def _sum_entries(mixed: Any, values: Any) -> Any:
    """Return the sums, modulo 2^64, of the mixed numbers of each entry."""
    counts = ak.to_numpy(ak.count(values, axis=1)) if values.ndim == 2 else None
    if counts is None:
        counts = np.array([len(_flat(one)) for one in values])
    ends = np.concatenate([[0], np.cumsum(counts)])
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])
    return running[ends[1:]] - running[ends[:-1]]


class Fingerprints:
    """Fingerprints of branches, and of pairs of them, chunk after chunk.

    The fingerprint of a pair is the sum of the products of both mixed numbers in a row,
    modulo 2^64. It stays if all rows are put in another order, and changes if one of
    the two branches alone is. A number of an entry is in a row with each of several
    numbers of the other branch.
    """

    def __init__(
        self, names: Iterable[str], pairs: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.sums = dict.fromkeys(names, 0)
        self.pairs = dict.fromkeys(pairs, 0)
        self.entries = 0

    def add(self, arrays: Mapping[str, Any]) -> None:
        """Count the entries of a chunk and mix their values."""
        self.entries += len(next(iter(arrays.values())))
        depth = {name: int(arrays[name].ndim) for name in self.sums}
        flat = {name: _flat(arrays[name]) for name in self.sums}
        by_size: dict[int, list[str]] = {}
        for name, values in flat.items():
            by_size.setdefault(len(values), []).append(name)
        for pair in list(self.pairs):
            made, read = pair
            if depth[made] > depth[read] == 1:
                mixed = _sum_entries(_mix(flat[made]), arrays[made])
                self._add_pair(pair, mixed, _mix(flat[read]))
            elif depth[made] != depth[read] or len(flat[made]) != len(flat[read]):
                del self.pairs[pair]  # Their rows are not the same.
        for names in by_size.values():
            own = [p for p in self.pairs if depth[p[0]] == depth[p[1]]]
            self._add_flat(
                {n: flat[n] for n in names}, [p for p in own if p[0] in names]
            )

    def _add_flat(
        self, flat: Mapping[str, Any], pairs: Iterable[tuple[str, str]]
    ) -> None:
        """Mix the numbers of branches with the same rows, block after block."""
        n, pairs = len(next(iter(flat.values()))), list(pairs)
        # Memory that is used again stays in the cache of a core.
        space = np.empty((len(flat) + 1, min(n, BLOCK)), np.uint64)
        for first in range(0, n, BLOCK):
            mixed = {
                name: _mix(values[first : first + BLOCK], own, space[-1])
                for (name, values), own in zip(flat.items(), space, strict=False)
            }
            for name, bits in mixed.items():
                self.sums[name] = (self.sums[name] + int(bits.sum())) % _MODULUS
            for pair in pairs:
                self._add_pair(pair, mixed[pair[0]], mixed[pair[1]])

    def _add_pair(self, pair: tuple[str, str], first: Any, second: Any) -> None:
        total = self.pairs[pair] + int(np.dot(first, second))
        self.pairs[pair] = total % _MODULUS

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """Return those of some branches as lines have them."""
        return {name: f"{self.sums[name]:016x}" for name in names if name in self.sums}

    def pair_texts(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return those of pairs of some generated branches as lines have them."""
        found: dict[str, dict[str, str]] = {name: {} for name in names}
        for (made, read), total in self.pairs.items():
            if made in found:
                found[made][read] = f"{total:016x}"
        return {name: own for name, own in found.items() if own}


def add_up(parts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    """Return the fingerprints of a whole, of what all parts have."""
    parts = list(parts)
    names = set(parts[0]).intersection(*parts[1:]) if parts else set()
    return {name: sum(part[name] for part in parts) % _MODULUS for name in names}
