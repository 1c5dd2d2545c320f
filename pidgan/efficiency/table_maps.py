"""Tables of efficiencies, used as maps: the efficiency without a generator.

The efficiency of a candidate is that of its bin, and the mean over candidates is

    value = sum_b f_b e_b,    calibration^2 = sum_b f_b^2 var(e_b),

with f_b the share of the weights in bin b. An error belongs to a bin: candidates, and
tracks of one candidate, that share a bin of one table share its error. This is what
`ref_calib` of PIDCalib2 does, which adds the errors of the tracks of a candidate in
quadrature and gives none for the mean. Bins without an efficiency serve nobody. How far
two cuts of a table are correlated is not known, and counts as zero.
"""

from pathlib import Path

import numpy as np

from pidgan.application.conditions import CHARGES
from pidgan.bundle.card import CardVariable
from pidgan.efficiency.efficiency_map import TABLE, EfficiencyMap
from pidgan.efficiency.table import FILLED, EfficiencyTable
from pidgan.errors import MapError
from pidgan.sample.cuts import parse_cut
from pidgan.sample.pidcalib_names import CHARGES as CHARGES_OF_TRACK

MAX_BINS = 5000
"""Largest number of bins of a table; their covariance takes 200 MB for each cut."""

_IN_MEV = {"P", "PT"}
_SPELLINGS = {
    "nSPDhits": ("nSPDhits", "nSPDHits"),
    "nSPDHits": ("nSPDHits", "nSPDhits"),
    "nTracks": ("nTracks",),
    **dict.fromkeys((*CHARGES, "charge"), (*CHARGES_OF_TRACK, "{track}_charge")),
}
"""Branches of a variable of PIDCalib2, where they are not `{track}_NAME` or `NAME`."""


def map_of_table(table: EfficiencyTable, *, name: str = "table") -> EfficiencyMap:
    """Return a table as a map that corrects nothing: its efficiencies count alone."""
    n_cuts, n_bins = len(table.cuts), table.sum_weights.size
    if n_bins > MAX_BINS:
        raise MapError(f"{name} has {n_bins} bins, expected at most {MAX_BINS}")
    usable = (table.status == FILLED).reshape(-1)
    if not usable.any():
        raise MapError(f"{name}: no bin has an efficiency")
    usable &= np.isfinite(table.efficiency.reshape(n_cuts, -1)).all(axis=0)

    def flat(values: np.ndarray) -> np.ndarray:
        return np.where(usable, values.reshape(n_cuts, -1), 0.0)

    variance = flat(table.variance)
    raw = np.zeros((n_cuts, n_cuts, n_bins))
    raw[np.arange(n_cuts), np.arange(n_cuts)] = variance
    conditions = [_condition(n, edges) for n, edges in table.binning.items()]
    used = [v for cut in table.cuts for v in parse_cut(cut).names]
    targets = [n for n in dict.fromkeys(used) if n not in table.binning]
    sums = np.where(usable, table.sum_weights.reshape(-1), 1.0)
    failed = np.maximum(table.sum_weights - table.sum_passed, 0)
    return EfficiencyMap(
        cuts=table.cuts,
        binning=dict(table.binning),
        generated=np.zeros((n_cuts, n_bins)),
        discrepancy=flat(table.efficiency),
        covariance=np.array([np.diag(own) for own in variance]),
        operator=np.broadcast_to(np.eye(n_bins), (n_cuts, n_bins, n_bins)),
        raw_covariance=raw,
        n_eff=table.n_eff.reshape(-1),
        passing=table.n_eff_passed.reshape(n_cuts, -1).sum(axis=1),
        failing=flat(failed) / sums @ table.n_eff.reshape(-1),
        variations={},
        metadata={
            "kind": TABLE,
            "name": name,
            "species": name,
            "pdgid": 0,
            "detector": "",
            "bundle_sha256": None,
            "conditions": [one.model_dump(mode="json") for one in conditions],
            "targets": [{"name": n, "sentinels": []} for n in targets],
            "unusable": np.flatnonzero(~usable).tolist(),
        },
    )


def open_table(given: EfficiencyTable | str | Path) -> EfficiencyMap:
    """Return a table, or the file that `EfficiencyTable.save` wrote, as a map."""
    if isinstance(given, EfficiencyTable):
        return map_of_table(given)
    return map_of_table(EfficiencyTable.open(given), name=str(given))


def _condition(name: str, edges: tuple[float, ...]) -> CardVariable:
    patterns = _SPELLINGS.get(name, (f"{{track}}_{name}", name))
    return CardVariable(
        name=name,
        unit="MeV" if name in _IN_MEV else "1",
        range=(edges[0], edges[-1]),
        patterns=patterns,
    )
