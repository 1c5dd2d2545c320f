"""Real efficiencies of all rows of a dataset, in bins."""

from collections.abc import Sequence

import pandas as pd

from pidgan.efficiency.binning import Binning
from pidgan.efficiency.intervals import VarianceName
from pidgan.efficiency.table import EfficiencyTable, efficiency_table
from pidgan.sample.dataset import Dataset


def dataset_table(
    dataset: Dataset,
    *,
    cuts: str | Sequence[str] | None = None,
    binning: Binning | None = None,
    variance: VarianceName = "wilson",
) -> EfficiencyTable:
    """Return the real efficiency of each cut in each bin, of all rows of a dataset.

    Args:
        dataset: Dataset of a calibration sample; excluded intervals are left out.
        cuts: One or several cuts; by default those of the sample.
        binning: Binning as in `efficiency_table`; by default that of the sample.
        variance: Formula of the intervals, "wilson" or "pidcalib".

    Raises:
        CutError: A cut names an unknown variable or is not a comparison.
    """
    parts = [dataset.frame(part) for part in ("train", "validation", "test")]
    frame = pd.concat(parts, ignore_index=True)
    sample = dataset.sample
    return efficiency_table(
        frame,
        cuts or sample.cuts,
        binning=sample.binning if binning is None else binning,
        weights=frame["weight"].to_numpy(),
        variance=variance,
        sentinels=sample.sentinels,
        aliases=sample.aliases,
    )
