"""A selection in every bin of its maps: efficiency, error, and names of branches."""

import re
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.filling import slopes_of
from pidgan.efficiency.period_maps import track_and_period
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.track_maps import Maps, parts_of
from pidgan.errors import CutError

ONE_PERIOD = {0: 1.0}
"""Share of the only period by its number."""

_SIGNS = (">=", "<=", "==", "!=", ">", "<", "-", "+", "*", "/", "&&", "&", "||", "|")
_WORDS = (
    *("ge", "le", "eq", "ne", "gt", "lt"),
    *("minus", "plus", "times", "over", "and", "and", "or", "or"),
)


def selection_names(selections: Sequence[Selection]) -> list[str]:
    """Prefixes such as `RichDLLk_gt_5_`, of which one selection alone has none."""
    if len(selections) == 1:
        return [""]
    names = [f"{_name(selection.text)}_" for selection in selections]
    for name, selection in zip(names, selections, strict=True):
        if names.count(name) > 1:
            raise CutError(
                f"cut {selection.text!r} is given twice, as {name}PIDCalibEff"
            )
    return names


def _name(text: str) -> str:
    """Return a cut as part of a branch's name."""
    text = re.sub(r"(\d)\.(\d)", r"\1p\2", text)
    for sign, word in zip(_SIGNS, _WORDS, strict=True):
        text = text.replace(sign, f" {word} ")
    return "_".join(re.findall(r"\w+", text.replace("!", " not ")))


class SelectionTable:
    """A selection in every bin (n_bins,) of the maps of its factors.

    A factor is a track, or a track in one of several periods (`period_maps`), whose
    shares are given by number.
    """

    def __init__(
        self, selection: Selection, maps: Maps, shares: Mapping[int, float] = ONE_PERIOD
    ) -> None:
        cuts = selection.cuts
        parts = {factor: parts_of(maps[factor]) for factor in cuts}
        tracks = tuple(dict.fromkeys(track_and_period(factor)[0] for factor in cuts))
        self.owners = {**{f"{track}_": (track,) for track in tracks}, "": tracks}
        self.terms = tuple(
            (share, tuple(f for f in cuts if track_and_period(f)[1] == period))
            for period, share in shares.items()
        )
        self.efficiency = {t: maps[t].nominal[cut] for t, cut in cuts.items()}
        # By two factors, where their bins lie that have the same map.
        self.covariance = [
            ((t, p.bins), (s, q.bins), p.map.joint_covariance(*numbers))
            for t, s in product(cuts, cuts)
            for p, q in product(parts[t], parts[s])
            if p.key == q.key
            for numbers in [(p.numbers[cuts[t]], q.numbers[cuts[s]])]
        ]
        # By map and variation, then by factor.
        self.shifts: dict[tuple[str, str], dict[str, FloatArray]] = {}
        for factor, cut in cuts.items():
            for part in parts[factor]:
                for name, values in part.map.variations.items():
                    own = self.shifts.setdefault((part.key, name), {})
                    own[factor] = np.zeros(len(maps[factor].n_eff))
                    own[factor][part.bins] = values[part.numbers[cut]]

        self.slopes = {
            factor: _joined([slopes_of(p.map, p.numbers[cut]) for p in parts[factor]])
            for factor, cut in cuts.items()
        }

    def filling(
        self,
        slopes: Mapping[str, FloatArray],
        places: Mapping[str, IntArray],
        offsets: Mapping[str, FloatArray],
    ) -> FloatArray:
        """Return what the places (n,) of rows in their bins may change.

        `slopes` are the derivatives by the factors that are used, `offsets` the
        distances (n_axes, n) from the mean of the reference.
        """
        parts = [
            slope * (self.slopes[f][:, places[f]] * offsets[f]).sum(axis=0)
            for f, slope in slopes.items()
        ]
        return np.asarray(np.sum(parts, axis=0))

    def product(
        self, tracks: Sequence[str], places: Mapping[str, IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the efficiency (n,) of tracks together, and its error."""
        terms = [
            (share, [f for f in factors if track_and_period(f)[0] in tracks])
            for share, factors in self.terms
        ]
        used = [factor for _, factors in terms for factor in factors]
        value, slopes = mean_product(
            terms, {f: self.efficiency[f][places[f]] for f in used}
        )
        variance = np.zeros(len(value))
        for (t, a), (s, b), covariance in self.covariance:
            if t in slopes and s in slopes:
                i, j = places[t], places[s]
                mine = (i >= a.start) & (i < a.stop) & (j >= b.start) & (j < b.stop)
                shared = covariance[i[mine] - a.start, j[mine] - b.start]
                variance[mine] += slopes[t][mine] * slopes[s][mine] * shared
        for shift in self.shifts.values():
            parts = [slopes[t] * shift[t][places[t]] for t in used if t in shift]
            variance += np.sum(parts, axis=0) ** 2
        inside = np.all([places[factor] >= 0 for factor in used], axis=0)
        value = np.where(inside, value, np.nan)
        return value, np.where(inside, np.sqrt(variance), np.nan)


def _joined(slopes: Sequence[FloatArray]) -> FloatArray:
    """Return slopes (n_axes, n_bins) of several maps side by side."""
    n = max(len(one) for one in slopes)
    padded = [np.pad(one, ((0, n - len(one)), (0, 0))) for one in slopes]
    return np.concatenate(padded, axis=1)


def mean_product(
    terms: Sequence[tuple[float, Sequence[str]]], values: Mapping[str, FloatArray]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return sum_s f_s prod_t e_st (n,), and its derivative by each factor."""
    mean, slopes = 0.0, {}
    for share, factors in terms:
        own = [values[factor] for factor in factors]
        mean = mean + share * np.prod(own, axis=0)
        for i, factor in enumerate(factors):
            others = [np.ones(len(own[i])), *own[:i], *own[i + 1 :]]
            slopes[factor] = share * np.prod(others, axis=0)
    return np.asarray(mean), slopes
