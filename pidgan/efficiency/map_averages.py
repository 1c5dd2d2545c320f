"""Averages of an efficiency map over bins: one definition, whoever shows them.

With shares f_b of rows in the bins, the corrected efficiency is sum_b f_b (g_b + d_b).
Its variance is f C f, with the covariance C of the discrepancies ("calibration"), and
(sum_b f_b v_b)^2 of every variation v of the map. `systematics`, its report,
`pidgan plot` and working points show these numbers; `efficiency` adds what an analysis
ntuple has of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.efficiency import binning as bins
from pidgan.efficiency.quoted import decimals
from pidgan.efficiency.real_vs_generated import ComparedRows, RealVsGenerated
from pidgan.efficiency.variation_parts import in_quadrature, parts_of_variations

REFERENCE = "reference"
"""Metadata of a map: its reference rows, and what is known of all of them together."""


class Binned(Protocol):
    """What an average needs of an efficiency map."""

    @property
    def cuts(self) -> tuple[str, ...]: ...

    @property
    def generated(self) -> FloatArray: ...

    @property
    def discrepancy(self) -> FloatArray: ...

    @property
    def covariance(self) -> FloatArray: ...

    @property
    def variations(self) -> dict[str, FloatArray]: ...

    @property
    def n_eff(self) -> FloatArray: ...

    @property
    def metadata(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Average:
    """Averages of all cuts of a map, (n_cuts,) each.

    `parts` are the uncertainties by name: "calibration", and that of each variation.
    """

    corrected: FloatArray
    generated: FloatArray
    parts: dict[str, FloatArray]

    @property
    def error(self) -> FloatArray:
        """All parts in quadrature."""
        return in_quadrature(self.parts.values())


def average(given: Binned, sizes: FloatArray, inside: Any = slice(None)) -> Average:
    """Return the average of some bins by sizes (n_bins,), of any sign.

    It is NaN if the sizes of these bins do not have a positive sum.
    """
    size = sizes[inside]
    total = size.sum()
    f = size / total if total > 0 else np.full(len(size), np.nan)
    block = given.covariance[:, inside][:, :, inside]
    own = np.sqrt(np.maximum(np.einsum("a,cab,b->c", f, block, f), 0.0))
    shifts = {
        name: in_quadrature([shift[:, inside] @ f for shift in several])
        for name, several in parts_of_variations(given.variations).items()
    }
    generated = given.generated[:, inside] @ f
    return Average(
        corrected=generated + given.discrepancy[:, inside] @ f,
        generated=generated,
        parts={"calibration": own, **shifts},
    )


def measure_whole(rows: ComparedRows, edges: bins.ChosenEdges) -> dict[str, Any]:
    """Return what a map records of all reference rows in its bins together.

    They are the shares of the bins, of real rows if targets are in the denominator,
    and, by cut, the real and generated efficiency and the sums of weights that pass and
    fail.
    """
    inside = rows.take(bins.bin_index(rows.columns, edges) >= 0)
    whole = inside.in_bins({})
    real, _ = inside.tables(edges)
    sums = real.sum_weights.reshape(-1)
    return {"shares": (sums / sums.sum()).tolist(), "efficiencies": _of_cuts(whole)}


def _of_cuts(whole: RealVsGenerated) -> dict[str, dict[str, float]]:
    found = {}
    for i, cut in enumerate(whole.cuts):
        passing = whole.real.sum_passed[i]
        values = {
            "real": whole.real.efficiency[i],
            "real_error": whole.real.error[i],
            "generated": whole.generated.efficiency[i],
            "passing": passing,
            "failing": whole.real.sum_weights - passing,
        }
        found[cut] = {name: float(value) for name, value in values.items()}
    return found


def map_sizes(given: Binned) -> FloatArray:
    """Return the shares (n_bins,) of the reference rows, else effective rows.

    Maps of version 0.1 and tables do not have the shares.
    """
    shares = given.metadata.get(REFERENCE, {}).get("shares")
    return given.n_eff if shares is None else np.asarray(shares, dtype=np.float64)


def averages(
    given: Binned, whole: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Return real, generated and corrected efficiency of all reference rows, by cut.

    `whole` is a result of `measure_whole`, by default what the map has recorded. There
    is nothing if a map has recorded nothing.
    """
    whole = given.metadata.get(REFERENCE, {}) if whole is None else whole
    known: Mapping[str, Mapping[str, float]] = whole.get("efficiencies", {})
    if "shares" not in whole:
        return {cut: dict(own) for cut, own in known.items()}
    mean = average(given, np.asarray(whole["shares"], dtype=np.float64))
    is_conditional = "denominator" in given.metadata
    found = {}
    for i, cut in enumerate(given.cuts):
        own, shift = known[cut], mean.corrected[i] - mean.generated[i]
        # Bins that say nothing alone have a generated efficiency by |weights|, which a
        # sum over all rows need not have.
        base = mean.generated[i] if is_conditional else own["generated"]
        found[cut] = {
            **own,
            "corrected": float(base + shift),
            "corrected_error": float(mean.error[i]),
            **{f"error_{name}": float(part[i]) for name, part in mean.parts.items()},
        }
    return found


def averages_text(known: Mapping[str, Mapping[str, float]], among: str) -> str:
    """Return a table of real, generated and corrected efficiencies, in per cent."""
    if not known:
        return ""
    width = max(map(len, (*known, "cut")))
    lines = [f"{'cut':{width}}  {'real':>17}  {'generated':>11}  {'corrected':>17}"]
    for cut, own in known.items():
        cells = []
        for name in ("real", "corrected"):
            value, error = 100 * own[name], 100 * own[f"{name}_error"]
            digits = decimals(error)
            cells.append(f"{value:.{digits}f} +- {error:.{digits}f} %")
        generated = generated_text(own)
        lines.append(f"{cut:{width}}  {cells[0]:>17}  {generated:>11}  {cells[1]:>17}")
    among = f", among {among}" if among else ""
    return "\n".join([*lines, f"of all reference rows in the bins{among}"])


def generated_text(own: Mapping[str, float]) -> str:
    """Return a generated efficiency with the digits of the real one."""
    digits = decimals(100 * own["real_error"])
    return f"{100 * own['generated']:.{digits}f} %"
