"""Efficiencies as linear functions of uncertain quantities: common errors cancel.

An estimate keeps, beside its value, its derivatives by the discrepancy of each map in
each cut and bin and by the fluctuation of each analysis sample, and its shift under
each further variation. The derivatives of a function of estimates follow from the
chain rule, J times the derivatives of its arguments, and then

    covariance = sum_s J_s S_s J_s^T + sum_m G_m C_m G_m^T + sum_v s_v s_v^T,

with S the statistical covariance of the samples, C the covariance of the maps'
discrepancies, G the gradients and s the shifts. An error that two efficiencies share
therefore cancels in their ratio, whether they are of two cuts, bins, tracks or ntuples.

This is first order: do not divide by an efficiency that is compatible with zero.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.efficiency import quoted
from pidgan.efficiency.common_errors import between_cuts
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.quoted import Estimate
from pidgan.efficiency.variation_parts import part_of
from pidgan.errors import PidganWarning
from pidgan.notebook import Facts, count, shown

MIN_SIGNIFICANCE = 3.0
"""Smallest ratio of a denominator to its uncertainty that gives no warning."""

Origin = tuple[Any, str]
"""Origin of a shift: a map or a sample, and the name of the variation."""


class Sample(Protocol):
    """Rows that estimates were made from, and the covariance of those estimates."""

    @property
    def covariance(self) -> FloatArray:
        """Statistical covariance (n, n) of the n estimates made from these rows."""

    def shared_covariance(self, other: Any) -> FloatArray | None:
        """Covariance (n, n_other) from rows that both have; None if there are none."""


@shown
@dataclass(frozen=True, kw_only=True, eq=False)
class Estimates:
    """Values whose covariances are known, with one another and with other estimates.

    `a / b`, `a - b`, `a + b` and `a * b` go element by element; one of the two may have
    a single element, or be a number. `a[numbers]` selects. All results are Estimates.

    Attributes:
        labels: Names of the quantities.
        values: (n,) values; NaN where there is none.
        samples: (n, n_sample) derivatives by the estimates made from a sample.
        gradients: (n, n_cuts * n_bins) derivatives by the discrepancies of a map.
        shifts: (n,) shift of each value, by origin.
        maps: Maps by the keys of `gradients`.
    """

    labels: tuple[str, ...]
    values: FloatArray
    samples: Mapping[Sample, Any] = field(default_factory=dict, repr=False)
    gradients: Mapping[str, Any] = field(default_factory=dict, repr=False)
    shifts: Mapping[Origin, FloatArray] = field(default_factory=dict, repr=False)
    maps: Mapping[str, EfficiencyMap] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Estimate]:
        stat, total = _errors(self.stat), _errors(self.covariance)
        parts = {name: _errors(part) for name, part in self.systematics.items()}
        for i, label in enumerate(self.labels):
            yield Estimate(
                label=label,
                value=float(self.values[i]),
                stat=float(stat[i]),
                syst={name: float(error[i]) for name, error in parts.items()},
                total=float(total[i]),
            )

    def __getitem__(self, numbers: int | slice | Sequence[int]) -> "Estimates":
        chosen = np.atleast_1d(np.arange(len(self))[numbers])
        return self.linear(
            sparse.eye_array(len(self), format="csr")[chosen],
            labels=[self.labels[i] for i in chosen],
        )

    def __truediv__(self, other: "Estimates | float") -> "Estimates":
        a, b = _pair(self, other)
        _check_denominator(b)
        y = np.where(b.values == 0, np.nan, b.values)
        return _combine(a, b, a.values / y, (1 / y, -a.values / y**2), "/")

    def __mul__(self, other: "Estimates | float") -> "Estimates":
        a, b = _pair(self, other)
        return _combine(a, b, a.values * b.values, (b.values, a.values), "*")

    def __sub__(self, other: "Estimates | float") -> "Estimates":
        a, b = _pair(self, other)
        one = np.ones(len(a))
        return _combine(a, b, a.values - b.values, (one, -one), "-")

    def __add__(self, other: "Estimates | float") -> "Estimates":
        a, b = _pair(self, other)
        one = np.ones(len(a))
        return _combine(a, b, a.values + b.values, (one, one), "+")

    @checked
    def linear(self, matrix: Any, *, labels: Sequence[str]) -> "Estimates":
        """Return a matrix (m, n), which may be sparse, times the values.

        This gives sums, averages and selections, with m labels.
        """
        j = sparse.csr_array(matrix)
        # Zero times NaN counts as zero: only values that are used must exist.
        lost = np.isnan(self.values)
        values = j @ np.where(lost, 0.0, self.values)
        values[(abs(j) @ lost.astype(np.float64)) > 0] = np.nan
        return self._through(j, values, labels)

    @cached_property
    def stat(self) -> FloatArray:
        """Statistical covariance (n, n)."""
        total = np.zeros((len(self), len(self)))
        for first, j in self.samples.items():
            for second, k in self.samples.items():
                same = first is second
                inner = first.covariance if same else first.shared_covariance(second)
                if inner is not None:
                    total += j @ (k @ inner.T).T
        return self._masked(total)

    @cached_property
    def systematics(self) -> dict[str, FloatArray]:
        """Covariances (n, n): "calibration", and each variation, summed over maps."""
        shape = (len(self), len(self))
        parts = {"calibration": np.zeros(shape)}
        for key, gradient in self.gradients.items():
            parts["calibration"] += map_covariance(self.maps[key], gradient)
        for (_, name), shift in self.shifts.items():
            part = part_of(name)
            parts[part] = parts.get(part, np.zeros(shape)) + np.outer(shift, shift)
        return {name: self._masked(part) for name, part in parts.items()}

    @cached_property
    def covariance(self) -> FloatArray:
        """Covariance (n, n) of everything; NaN where there is no value."""
        total: FloatArray = sum(self.systematics.values(), self.stat)
        return total

    def content(self) -> dict[str, Any]:
        """Return everything for JSON, with null for NaN."""
        return {"results": quoted.for_json(list(self)), **self.covariances()}

    def covariances(self) -> dict[str, Any]:
        """Return the covariance and its parts for JSON."""
        parts = quoted.for_json({"stat": self.stat, **self.systematics})
        whole = quoted.for_json(self.covariance)
        return {"covariance": whole, "covariance_parts": parts}

    def text(self) -> str:
        """Return a table of values and uncertainties."""
        rows = list(self)
        lines = quoted.quote_lines(rows, unit="")
        return "\n".join([*lines, "", *quoted.table_lines(rows, "", unit="")])

    def latex(self) -> str:
        """Return a LaTeX table: value +- statistical +- systematic."""
        return quoted.estimate_latex(self)

    def _through(
        self, j: Any, values: FloatArray, labels: Sequence[str]
    ) -> "Estimates":
        """Return estimates of which J are the derivatives by these."""
        return Estimates(
            labels=tuple(labels),
            values=values,
            samples={key: j @ d for key, d in self.samples.items()},
            gradients={key: j @ d for key, d in self.gradients.items()},
            shifts={key: j @ d for key, d in self.shifts.items()},
            maps=self.maps,
        )

    def _masked(self, covariance: FloatArray) -> FloatArray:
        """Return a covariance with NaN where there is no value."""
        lost = np.isnan(self.values)
        covariance[lost, :] = covariance[:, lost] = np.nan
        return covariance

    def _facts(self) -> Facts:
        found = list(self)
        return Facts(
            count(len(found), "estimates")
            + "".join(f", first {one.label}: {one.value:.4f}" for one in found[:1]),
            {one.label: f"{one.value:.5f} +- {one.total:.5f}" for one in found},
        )


def stack(parts: Iterable[Estimates]) -> Estimates:
    """Return the estimates of several, one after the other."""
    parts = list(parts)
    total, start = sum(map(len, parts)), 0
    joined: dict[str, dict[Any, Any]] = {"samples": {}, "gradients": {}, "shifts": {}}
    for part in parts:
        # Puts rows of the part at their place among all.
        place = sparse.eye_array(total, len(part), k=-start, format="csr")
        start += len(part)
        for kind, found in joined.items():
            for key, values in getattr(part, kind).items():
                own = place @ values
                found[key] = found[key] + own if key in found else own
    return Estimates(
        labels=tuple(label for part in parts for label in part.labels),
        values=np.concatenate([part.values for part in parts]),
        maps={key: m for part in parts for key, m in part.maps.items()},
        **joined,
    )


def map_covariance(efficiency_map: EfficiencyMap, gradient: Any) -> FloatArray:
    """Return G C G^T (n, n) of derivatives (n, n_cuts * n_bins) by discrepancies."""
    n_bins = len(efficiency_map.n_eff)
    total = np.zeros((gradient.shape[0], gradient.shape[0]))
    slopes, places = [], []
    for cut in range(len(efficiency_map.cuts)):
        block = sparse.csr_array(gradient[:, cut * n_bins : (cut + 1) * n_bins])
        rows = np.flatnonzero(np.diff(block.indptr))
        if not len(rows):
            continue
        own = block[rows].toarray()
        total[np.ix_(rows, rows)] += own @ efficiency_map.covariance[cut] @ own.T
        slopes.append((cut, own))
        places.append(rows)
    for (a, b), cross in between_cuts(efficiency_map, slopes).items():
        total[np.ix_(places[a], places[b])] += cross
        total[np.ix_(places[b], places[a])] += cross.T
    return total


def map_key(efficiency_map: EfficiencyMap) -> str:
    """Return a hash that tells a map from others, however it was opened."""
    digest, shifts = hashlib.sha256(), efficiency_map.variations.values()
    for array in (efficiency_map.discrepancy, efficiency_map.raw_covariance, *shifts):
        digest.update(np.ascontiguousarray(array).tobytes())
    head = [efficiency_map.cuts, efficiency_map.binning, efficiency_map.metadata]
    digest.update(json.dumps(head, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _pair(a: Estimates, b: Estimates | float) -> tuple[Estimates, Estimates]:
    """Return both with the same number of elements."""
    if not isinstance(b, Estimates):
        b = Estimates(labels=(f"{b:g}",), values=np.array([float(b)]))
    n = max(len(a), len(b))
    if {len(a), len(b)} - {1, n}:
        raise ValueError(
            f"{len(a)} and {len(b)} estimates: expected as many of both, or one of one"
        )
    warn_of_relatives({**a.maps, **b.maps})
    first, second = (one if len(one) == n else one[[0] * n] for one in (a, b))
    return first, second


def _combine(
    a: Estimates,
    b: Estimates,
    values: FloatArray,
    slopes: tuple[FloatArray, FloatArray],
    sign: str,
) -> Estimates:
    """Return f(a, b) of values and derivatives by a and b, element by element."""
    both = stack([a, b])
    usable = np.isfinite(values)
    blocks = [sparse.diags_array(np.where(usable, slope, 0.0)) for slope in slopes]
    labels = [f"({x}) {sign} ({y})" for x, y in zip(a.labels, b.labels, strict=True)]
    values = np.where(usable, values, np.nan)
    return both._through(sparse.csr_array(sparse.hstack(blocks)), values, labels)


def _check_denominator(b: Estimates) -> None:
    """Warn of denominators for which linear propagation is wrong."""
    total = _errors(b.covariance)
    near = np.abs(b.values) < MIN_SIGNIFICANCE * total
    for i in np.flatnonzero(near | (b.values == 0)):
        warnings.warn(
            f"ratio to {b.labels[i]}: {b.values[i]:.4g} +- {total[i]:.4g} is within "
            f"{MIN_SIGNIFICANCE:g} uncertainties of zero, too close for linear "
            "propagation",
            PidganWarning,
            stacklevel=3,
        )


def warn_of_relatives(maps: Mapping[str, EfficiencyMap]) -> None:
    """Warn of maps that share rows in a way that they do not record."""
    bundles = [m.metadata.get("bundle_sha256") for m in maps.values()]
    known = [bundle for bundle in bundles if bundle is not None]
    if len(set(known)) < len(known):
        warnings.warn(
            "two efficiency maps of the same bundle are combined as if they were "
            "independent; make one map with all cuts",
            PidganWarning,
            stacklevel=4,
        )


def _errors(covariance: FloatArray) -> FloatArray:
    """Square roots of the diagonal, NaN where there is no value."""
    return np.asarray(np.sqrt(np.maximum(np.diag(covariance), 0.0)))
