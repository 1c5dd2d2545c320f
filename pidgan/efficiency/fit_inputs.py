"""Efficiencies as an input of a fit: a workspace of pyhf, which cabinetry reads too.

Each selection is a channel, and its histogram has the bins of the analysis: the yield
is the corrected efficiency of a bin times its sum of weights. Each part of the
uncertainty (`stat`, `calibration`, `binning`, ...) is divided into independent ones,
the eigenvectors of its covariance between all bins of all channels. A modifier shifts
all of them together by one standard deviation, in all channels under one name:
`histosys`, or `normsys` in a channel of one bin. The squares of the shifts add up to
the covariance that `pid_efficiency` gives, and so to its total uncertainty.

L. Heinrich, M. Feickert, G. Stark, K. Cranmer, J. Open Source Softw. 6 (2021) 2823;
K. Cranmer et al., CERN-OPEN-2012-016.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.efficiency.eigen_variations import eigen_shifts
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.selection_table import selection_names
from pidgan.efficiency.sums import RowSample
from pidgan.errors import MapError
from pidgan.files.writing import writing_file

SHARE = 0.9999
"""Share of the variance of a part that its own modifiers carry. The rest is one more,
which shifts all bins together; so little of it changes the error of a sum of a hundred
bins by less than half a per cent."""

SAMPLE = "signal"
"""Name of the sample of a workspace, and PREFIX of its modifiers."""

PREFIX = "pid"

POI = "mu"


@checked
def fit_workspace(
    found: PidEfficiencies, *, sample: str = SAMPLE, share: float = SHARE
) -> dict[str, Any]:
    """Return efficiencies in bins as a workspace of pyhf.

    Args:
        found: Efficiencies, in the bins of the histogram that is fitted.
        sample: Name of the sample.
        share: Share of the variance of each part of the uncertainty that has modifiers
            of its own; the rest is in one more.

    Returns:
        The workspace: channels with yields and modifiers, and the yields as
        observations, to be replaced by those of data. The normalisation of the sample
        is "mu".

    Raises:
        MapError: A bin has no efficiency, or periods have different rows.

    Example:
        >>> found = pid_efficiency(maps, "out.root", binning={"B_M": 20})
        ... # doctest: +SKIP
        >>> spec = fit_workspace(found)                           # doctest: +SKIP
        >>> pyhf.Workspace(spec).model()                          # doctest: +SKIP
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share:g}, expected above 0 and at most 1")
    rows, *others = (cast(RowSample, one) for one in found.estimates.samples)
    # Periods have the same rows, unless a bundle has not generated all of them.
    if any(not np.allclose(one.sums, rows.sums, rtol=1e-9) for one in others):
        raise MapError(
            "the periods use different rows of the ntuple, so that a bin has no one "
            "yield; make one workspace for each period"
        )
    sizes, nominal = _yields(found, rows)
    shifts = _shifts(found, np.tile(sizes, len(rows.selections)), share)
    channels: list[Any] = []
    for number, name in enumerate(selection_names(rows.selections)):
        own = slice(number * len(sizes), (number + 1) * len(sizes))
        modifiers: list[dict[str, Any]] = [
            {"name": POI, "type": "normfactor", "data": None}
        ]
        for what, shift in shifts.items():
            if np.any(shift[own]):
                modifiers.append(_modifier(what, nominal[own], shift[own]))
        content = {"name": sample, "data": nominal[own].tolist()}
        channels.append(
            {
                "name": name.rstrip("_") or "selected",
                "samples": [{**content, "modifiers": modifiers}],
            }
        )
    measurement = {"name": "pidgan", "config": {"poi": POI, "parameters": []}}
    return {
        "channels": channels,
        "observations": [
            {"name": c["name"], "data": c["samples"][0]["data"]} for c in channels
        ],
        "measurements": [measurement],
        "version": "1.0.0",
    }


@checked
def write_fit_workspace(
    found: PidEfficiencies,
    path: str | Path,
    *,
    sample: str = SAMPLE,
    share: float = SHARE,
    overwrite: bool = False,
) -> Path:
    """Write `fit_workspace` as a JSON file, which pyhf and cabinetry read.

    Args:
        found: Efficiencies, in the bins of the histogram that is fitted.
        path: File that is written.
        sample: Name of the sample.
        share: As in `fit_workspace`.
        overwrite: Whether to replace an existing file.
    """
    content = fit_workspace(found, sample=sample, share=share)
    with writing_file(path, overwrite=overwrite) as temporary:
        text = json.dumps(content, indent=1, allow_nan=False)
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _yields(found: PidEfficiencies, rows: RowSample) -> tuple[FloatArray, FloatArray]:
    """Return the sum of weights of each bin, and the yields of all channels."""
    values = found.estimates.values
    lost = int(np.count_nonzero(~np.isfinite(values)))
    if lost:
        raise MapError(
            f"{lost} of {len(values)} bins have no efficiency, which no fit can use: "
            "they are empty, or their sum of weights is not positive; choose wider bins"
        )
    return rows.sums, values * np.tile(rows.sums, len(rows.selections))


def _shifts(
    found: PidEfficiencies, sizes: FloatArray, share: float
) -> dict[str, FloatArray]:
    """Return independent shifts (n,) of all yields by the names of modifiers."""
    shifts: dict[str, FloatArray] = {}
    for part, covariance in found.covariances.items():
        scaled = covariance * sizes * sizes[:, np.newaxis]
        own = _modes(scaled, share)
        for name, shift in own.items():
            number = f"_{name}" if len(own) > 1 else ""
            shifts[f"{PREFIX}_{part}{number}"] = shift
    return shifts


def _modes(covariance: FloatArray, share: float) -> dict[str, FloatArray]:
    """Return shifts by number, and the rest, of a covariance (n, n)."""
    if not np.trace(covariance) > 0:
        return {}
    found = eigen_shifts(covariance, share=share, most=len(covariance))
    rest = found["calibration_rest"]
    least = 1e-9 * np.sqrt(np.trace(covariance))
    named = {name.removeprefix("calibration_"): own for name, own in found.items()}
    return named if rest.max() > least else {n: named[n] for n in list(named)[:-1]}


def _modifier(name: str, nominal: FloatArray, shift: FloatArray) -> dict[str, Any]:
    """Return a modifier of yields (n,) that a standard deviation shifts."""
    up, down = nominal + shift, nominal - shift
    if len(nominal) == 1 and min(up[0], down[0], nominal[0]) > 0:
        ratios = {"hi": up[0] / nominal[0], "lo": down[0] / nominal[0]}
        return {"name": name, "type": "normsys", "data": ratios}
    data: Mapping[str, Any] = {"hi_data": up.tolist(), "lo_data": down.tolist()}
    return {"name": name, "type": "histosys", "data": data}
