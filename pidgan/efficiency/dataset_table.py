"""Tables of the real efficiencies of a dataset."""

from collections.abc import Sequence

import pandas as pd

from pidgan.efficiency import binning as bins
from pidgan.efficiency import sorted_rows
from pidgan.efficiency.table import EfficiencyTable, efficiency_table
from pidgan.sample.dataset import Dataset
from pidgan.sample.events import EVENT


def dataset_table(
    dataset: Dataset,
    *,
    cuts: str | Sequence[str] | None = None,
    where: str | None = None,
    binning: bins.Binning | None = None,
    variance: sorted_rows.VarianceName = "wilson",
) -> EfficiencyTable:
    """Return efficiencies of all rows of a dataset, but not of excluded intervals.

    Candidates of one event count as one in their uncertainty.
    """
    parts = [dataset.frame(part) for part in ("train", "validation", "test")]
    frame = pd.concat(parts, ignore_index=True)
    sample = dataset.sample
    return efficiency_table(
        frame,
        cuts or sample.cuts,
        where=where,
        binning=sample.binning if binning is None else binning,
        weights=frame["weight"].to_numpy(),
        variance=variance,
        sentinels=sample.sentinels,
        aliases=sample.aliases,
        key=[EVENT] if EVENT in frame and variance != "pidcalib" else (),
    )
