"""Several passes of `apply` over one file, each with a bundle of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from toy_generator import ToyGenerator, make_card
from toy_map import make_map

from pidgan.application.apply import apply
from pidgan.application.generators import generator_hash
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.errors import MapError
from pidgan.files.tables import write_trees

UP, DOWN = (
    ToyGenerator(card=make_card(seed=seed), offset=offset)
    for seed, offset in ((1, 0.0), (2, 0.8))
)
CUT = "DLLk > 0"


def map_of(generator: ToyGenerator, **changes: Any) -> Any:
    metadata = make_map().metadata | {"bundle_sha256": generator_hash(generator)}
    return make_map(metadata=metadata, **changes)


MAPS = (map_of(UP), map_of(DOWN, discrepancy=-make_map().discrepancy))


@pytest.fixture
def passes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    n = 900
    columns = {
        "K_P": rng.uniform(5e3, 9e4, n),
        "K_ETA": rng.uniform(2, 4.9, n),
        "Polarity": rng.choice([-1, 1], n),
    }
    columns["K_P"][:5] = np.nan  # no condition
    source, first, second = (tmp_path / f"{name}.root" for name in "abc")
    write_trees(source, {"T": columns})
    apply({"K": UP}, source, first, where="Polarity == 1")
    where = "Polarity == -1"
    options: dict[str, Any] = {"mode": "replace", "elsewhere": "keep", "where": where}
    done = apply({"K": DOWN}, first, second, **options)
    assert done.counts["K"]["generated"] <= np.count_nonzero(columns["Polarity"] == -1)
    text = done.text()
    assert f"{done.counts['K']['generated']} tracks with generated values" in text
    assert "tracks not selected by --where" in text
    assert "decay in flight" not in text
    # In one step for each half, as a check.
    for generator, name in ((UP, "up"), (DOWN, "down")):
        apply({"K": generator}, source, tmp_path / f"{name}.root")
    return second


def read(path: Path, name: str) -> Any:
    with uproot.open(path) as file:
        return file[f"T/{name}"].array(library="np")


def test_values_and_status_are_those_of_the_pass_of_each_row(passes: Path) -> None:
    up = read(passes, "Polarity") == 1
    for name in ("K_DLLk", "K_DLLp", "K_pidgan_status"):
        found = read(passes, name)
        first, second = (read(passes.with_stem(n), name) for n in ("up", "down"))
        np.testing.assert_array_equal(found, np.where(up, first, second))
    assert np.count_nonzero(read(passes, "K_pidgan_status")) == 5


@pytest.mark.filterwarnings("ignore:.*have no generated targets")
def test_each_row_uses_the_map_of_its_pass(passes: Path, tmp_path: Path) -> None:
    found = pid_efficiency(
        {"K": MAPS}, passes, cuts=CUT, binning={"Polarity": [-1, 0, 1]}
    )
    down, up = found
    assert found[0].n_rows + found[1].n_rows == 895
    for one, name, own, cut in (
        (up, "up", MAPS[0], "Polarity == 1"),
        (down, "down", MAPS[1], "Polarity == -1"),
    ):
        path = passes.with_stem(name)
        (alone,) = pid_efficiency({"K": own}, path, cuts=CUT, where=cut)
        assert one.value == pytest.approx(alone.value, rel=1e-12)
        assert one.total == pytest.approx(alone.total, rel=1e-9)
    out = tmp_path / "columns.root"
    write_efficiency_columns({"K": MAPS}, passes, out, cuts=CUT)
    assert np.isfinite(read(out, "K_PIDCalibEff")).sum() == 895


def test_all_maps_are_needed(passes: Path) -> None:
    for one in MAPS:
        with pytest.raises(MapError, match=r"rows with Polarity == -?1 were generated"):
            pid_efficiency({"K": one}, passes, cuts=CUT)
