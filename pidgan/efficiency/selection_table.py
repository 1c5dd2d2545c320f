"""A selection in every bin of its maps: product of efficiencies, error, branch name."""

import re
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.track_maps import Maps, parts_of
from pidgan.errors import CutError

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
    """A selection in every bin (n_bins,) of the maps of its tracks."""

    def __init__(self, selection: Selection, maps: Maps) -> None:
        cuts = selection.cuts
        parts = {track: parts_of(maps[track]) for track in cuts}
        self.owners = {**{f"{track}_": [track] for track in cuts}, "": list(cuts)}
        self.efficiency = {t: maps[t].nominal[cut] for t, cut in cuts.items()}
        # By two tracks, where their bins lie that have the same map.
        self.covariance = [
            ((t, p.bins), (s, q.bins), p.map.joint_covariance(*numbers))
            for t, s in product(cuts, cuts)
            for p, q in product(parts[t], parts[s])
            if p.key == q.key
            for numbers in [(p.numbers[cuts[t]], q.numbers[cuts[s]])]
        ]
        # By map and variation, then by track.
        self.shifts: dict[tuple[str, str], dict[str, FloatArray]] = {}
        for track, cut in cuts.items():
            for part in parts[track]:
                for name, values in part.map.variations.items():
                    own = self.shifts.setdefault((part.key, name), {})
                    own[track] = np.zeros(len(maps[track].n_eff))
                    own[track][part.bins] = values[part.numbers[cut]]

    def product(
        self, tracks: Sequence[str], places: Mapping[str, IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the product (n,) of the efficiencies of tracks, and its error."""
        factors = [self.efficiency[t][places[t]] for t in tracks]
        slopes = {
            t: np.prod([np.ones(len(f)), *factors[:i], *factors[i + 1 :]], axis=0)
            for i, (t, f) in enumerate(zip(tracks, factors, strict=True))
        }
        variance = np.zeros(len(factors[0]))
        for (t, a), (s, b), covariance in self.covariance:
            if t in slopes and s in slopes:
                i, j = places[t], places[s]
                mine = (i >= a.start) & (i < a.stop) & (j >= b.start) & (j < b.stop)
                shared = covariance[i[mine] - a.start, j[mine] - b.start]
                variance[mine] += slopes[t][mine] * slopes[s][mine] * shared
        for shift in self.shifts.values():
            parts = [slopes[t] * shift[t][places[t]] for t in tracks if t in shift]
            variance += np.sum(parts, axis=0) ** 2
        inside = np.all([places[track] >= 0 for track in tracks], axis=0)
        value = np.where(inside, np.prod(factors, axis=0), np.nan)
        return value, np.where(inside, np.sqrt(variance), np.nan)
