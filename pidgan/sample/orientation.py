"""Whether x and y of the cells are those of the impact point, as data tell."""

import warnings

import numpy as np

from pidgan.errors import PidganWarning
from pidgan.sample.dataset import Dataset

ROWS = 2000  # showers that are looked at
#: Correlation of centre and impact point from which it is one, and its ratio to the
#: other that it has to exceed.
LEAST, RATIO = 0.2, 3.0


def warn_exchanged(dataset: Dataset, where: str) -> None:
    """Warn where the centre in x follows the impact point in y, and the reverse.

    The impact point is that of the symmetry of the cells; without one nothing is known.
    """
    sample, cells = dataset.sample, dataset.sample.cells
    names = cells.symmetry.columns if cells is not None and cells.symmetry else {}
    if cells is None or not {names.get("x"), names.get("y")} <= {
        *sample.condition_names
    }:
        return
    places = [sample.condition_names.index(names[axis]) for axis in ("x", "y")]
    point_of = np.asarray(dataset.conditions[:ROWS, places], dtype=np.float64)
    e = np.asarray(dataset.targets[:ROWS], dtype=np.float64)
    for view in cells.layout.views:
        kinds = {layer.kind for layer in view.layers}
        if not view.has_plane or kinds != {"rectangular"}:
            continue
        part = cells.layout.view_slices[view.name]
        at = cells.layout.centres[part][:, :2]
        total = e[:, part].sum(axis=1)
        some = total > 0
        if np.sum(some) < 100:
            continue
        centre = e[some][:, part] @ at / total[some, None]
        columns = np.concatenate([centre, point_of[some]], axis=1)
        if np.any(columns.std(axis=0) == 0):
            continue
        r = np.abs(np.corrcoef(columns, rowvar=False)[:2, 2:])
        right, wrong = r.trace(), r[0, 1] + r[1, 0]
        if wrong > 2 * LEAST and wrong > RATIO * right:
            warnings.warn(
                f"{where}: in view {view.name!r} the centre in x follows the impact "
                f"point in y (correlation {r[0, 1]:.2f}), not in x ({r[0, 0]:.2f}): "
                'x and y are exchanged; check \'order\' of the layers, "yx" or "xy"',
                PidganWarning,
                stacklevel=5,
            )
