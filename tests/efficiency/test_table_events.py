"""Tables of rows of which several belong to one event."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pidgan.efficiency.table import efficiency_table
from pidgan.errors import DatasetError
from pidgan.files.tables import write_trees


@pytest.mark.parametrize("names", [("runNumber", "eventNumber"), ("run", "mine")])
def test_candidates_of_one_event_count_as_one(
    names: tuple[str, str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    event = np.repeat(np.arange(400), rng.integers(1, 5, 400))
    rng.shuffle(event)
    frame = {
        "P": rng.uniform(0, 10, 400)[event],
        "y": rng.standard_normal(400)[event],
        names[0]: np.full(len(event), 7),
        names[1]: event,
    }
    given: dict[str, Any] = {"binning": {"P": (0, 5, 10)}}
    bare = {"P": frame["P"], "y": frame["y"]}
    alone = efficiency_table(bare, "y > 0", **given)
    own = () if names[0] == "runNumber" else list(names)
    found = efficiency_table(frame, "y > 0", key=own, **given)
    np.testing.assert_array_equal(found.efficiency, alone.efficiency)
    assert (found.error > 1.2 * alone.error).all()
    # A copy of each event says nothing new, as long as Wilson's term is small.
    w = np.bincount(event, minlength=400)
    first = np.unique(event, return_index=True)[1]
    once = {k: np.asarray(v)[first] for k, v in frame.items()}
    same = efficiency_table(once, "y > 0", weights=w[w > 0], **given)
    np.testing.assert_allclose(found.efficiency, same.efficiency, rtol=1e-12)
    np.testing.assert_allclose(found.error, same.error, rtol=0.05)
    write_trees(tmp_path / "own.root", {"tree": frame})
    read = efficiency_table(tmp_path / "own.root", "y > 0", key=own, **given)
    np.testing.assert_allclose(read.error, found.error, rtol=1e-9)
    pidcalib = efficiency_table(frame, "y > 0", variance="pidcalib", **given)
    plain = efficiency_table(bare, "y > 0", variance="pidcalib", **given)
    np.testing.assert_array_equal(pidcalib.error, plain.error)


def test_a_key_that_is_no_column_is_named() -> None:
    frame = {"P": np.arange(3.0), "y": np.arange(3.0), "eventNumber": np.arange(3)}
    with pytest.raises(DatasetError, match=r"'eventNumer' for the key .*eventNumber"):
        efficiency_table(frame, "y > 1", key=["eventNumer"])
