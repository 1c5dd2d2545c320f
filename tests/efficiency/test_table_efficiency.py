"""The efficiency from a table, without a generator: columns, means, shared errors."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from command_line import Run, one_line

from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.table import EfficiencyTable, efficiency_table
from pidgan.errors import DatasetError, MapError, PidganError, PidganWarning
from pidgan.files.tables import write_trees

CUTS = ("DLLK > 0", "DLLK > 4")
BINNING = {"P": (3e3, 1e4, 3e4, 1e5), "nTracks": (0, 150, 500)}


def make_table(seed: int = 1, n: int = 4000, **changes: Any) -> EfficiencyTable:
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(np.log(3.1e3), np.log(9.9e4), n))
    columns = {
        "P": p,
        "nTracks": rng.integers(1, 490, n),
        "DLLK": rng.normal(6 - 2e-5 * p, 4),
    }
    w = rng.choice([1.1, -0.3], n, p=[0.9, 0.1])
    return efficiency_table(columns, CUTS, binning=BINNING, weights=w, **changes)


TABLE = make_table()


def draw(n: int = 1500, seed: int = 2) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(np.log(3.1e3), np.log(9.9e4), (2, n)))
    return {
        "K_P": p[0],
        "pi_P": np.where(rng.random(n) < 0.5, p[0], p[1]),
        "nTracks": rng.integers(1, 490, n),
        "sw": rng.choice([1.2, -0.4], n, p=[0.8, 0.2]),
        "K_TRUEID": rng.choice([321, 211], n),
    }


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    path = tmp_path / "analysis.root"
    write_trees(path, {"DecayTree": draw()})
    return path


def bins_of(rows: Mapping[str, Any], track: str) -> np.ndarray:
    p = np.searchsorted(BINNING["P"], rows[f"{track}_P"], side="right") - 1
    return np.asarray(2 * p + (rows["nTracks"] >= 150))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("variance", ["wilson", "pidcalib"])
def test_files_are_the_table(tmp_path: Path, suffix: str, variance: Any) -> None:
    table = make_table(variance=variance)
    path = table.save(tmp_path / f"eff{suffix}")
    opened = EfficiencyTable.open(path)
    assert opened.cuts == table.cuts
    assert opened.binning == table.binning
    for name in (
        "efficiency",
        "variance",
        "lower",
        "upper",
        "n_eff",
        "n_rows",
        "status",
    ):
        np.testing.assert_allclose(
            getattr(opened, name), getattr(table, name), rtol=1e-9
        )
    np.testing.assert_allclose(opened.sum_passed2, table.sum_passed2, rtol=1e-9)


def test_the_mean_has_the_errors_of_bins(ntuple: Path) -> None:
    (one,) = pid_efficiency({"K": TABLE}, ntuple, cuts="DLLK > 4", weights="sw")
    rows = draw()
    place, w = bins_of(rows, "K"), rows["sw"]
    e, variance = (a[1].reshape(-1) for a in (TABLE.efficiency, TABLE.variance))
    assert one.value == pytest.approx((w * e[place]).sum() / w.sum())
    f = np.bincount(place, w, 6) / w.sum()
    assert one.syst == {"calibration": pytest.approx(math.sqrt(f**2 @ variance))}
    spread = (w * (e[place] - one.value)) ** 2
    assert one.stat == pytest.approx(math.sqrt(spread.sum()) / abs(w.sum()))
    assert math.isnan(one.generated)
    assert one.flags == ()


def test_tracks_that_share_a_bin_share_its_error(ntuple: Path) -> None:
    maps = {"K": TABLE, "pi": TABLE}
    (one,) = pid_efficiency(maps, ntuple, cuts="DLLK > 4")
    rows = draw()
    k, pi = bins_of(rows, "K"), bins_of(rows, "pi")
    e, variance = (a[1].reshape(-1) for a in (TABLE.efficiency, TABLE.variance))
    n = len(k)
    gradient = np.bincount(k, e[pi], 6) / n + np.bincount(pi, e[k], 6) / n
    assert one.value == pytest.approx((e[k] * e[pi]).mean())
    assert one.syst["calibration"] == pytest.approx(math.sqrt(gradient**2 @ variance))
    others = {"K": TABLE, "pi": make_table(seed=3)}
    (apart,) = pid_efficiency(others, ntuple, cuts="DLLK > 4")
    assert apart.syst["calibration"] < one.syst["calibration"]


def test_columns_are_those_of_the_bins(ntuple: Path, tmp_path: Path) -> None:
    path = TABLE.save(tmp_path / "eff.csv")
    out = tmp_path / "columns.root"
    maps = {"K": path, "pi": path}
    written = write_efficiency_columns(maps, ntuple, out, cuts="DLLK > 0")
    assert written.counts["K"]["outside_map"] == 0
    rows = draw()
    k, pi = bins_of(rows, "K"), bins_of(rows, "pi")
    e, error = (a[0].reshape(-1) for a in (TABLE.efficiency, TABLE.error))
    with uproot.open(out) as file:
        found = file["DecayTree"].arrays(library="np")
    np.testing.assert_allclose(found["K_PIDCalibEff"], e[k])
    np.testing.assert_allclose(found["K_PIDCalibErr"], error[k])
    np.testing.assert_allclose(found["PIDCalibEff"], e[k] * e[pi])
    apart = np.hypot(e[k] * error[pi], e[pi] * error[k])
    same = k == pi
    np.testing.assert_allclose(found["PIDCalibErr"][~same], apart[~same])
    np.testing.assert_allclose(found["PIDCalibErr"][same], (2 * e[k] * error[k])[same])


def test_rows_without_an_efficiency_are_left_out_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    columns = {"P": rng.uniform(3e3, 2.9e4, 500), "nTracks": np.full(500, 200.0)}
    columns["DLLK"] = rng.normal(3, 4, 500)
    with pytest.warns(PidganWarning, match="no efficiency in 4 of 6 bins"):
        table = efficiency_table(columns, CUTS, binning=BINNING)
    path = tmp_path / "analysis.root"
    rows = draw() | {"nTracks": np.full(1500, 200)}
    write_trees(path, {"DecayTree": rows})
    found = pid_efficiency({"K": table}, path, cuts="DLLK > 0")
    has = rows["K_P"] < 3e4
    assert found[0].n_rows == np.count_nonzero(has)
    assert found.n_uncovered == np.count_nonzero(~has)
    assert (
        f"without an efficiency, left out: {np.count_nonzero(~has)} rows"
        in found.text()
    )
    out = tmp_path / "columns.root"
    with pytest.warns(PidganWarning, match="lie outside its map and have NaN"):
        write_efficiency_columns({"K": table}, path, out, cuts="DLLK > 0")
    with uproot.open(out) as file:
        values = file["DecayTree/K_PIDCalibEff"].array(library="np")
    np.testing.assert_array_equal(np.isnan(values), ~has)


def test_the_share_outside_is_that_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "analysis.root"
    rows = draw()
    beyond = np.arange(1500) % 4 == 0
    rows["K_P"] = np.where(beyond, 2e5, rows["K_P"])
    write_trees(path, {"DecayTree": rows})
    found = pid_efficiency({"K": TABLE}, path, cuts="DLLK > 0", weights="sw")
    share = rows["sw"][beyond].sum() / rows["sw"].sum()
    assert found.outside["K"]["P"].share == pytest.approx(share)
    assert f"375 rows, {100 * share:.2f} % of the weight" in found.text()


@pytest.mark.parametrize("name", ["CHARGE", "trackcharge", "charge"])
@pytest.mark.parametrize("branch", ["CHARGE", "trackcharge", "charge", "Q"])
def test_a_charge_has_many_names(name: str, branch: str) -> None:
    charge = np.tile([-1, 1, 1], 100)
    y = np.where(charge > 0, np.arange(300) % 2, 1)
    table = efficiency_table({name: charge, "y": y}, "y", binning={name: (-1, 0, 1)})
    found = pid_efficiency({"K": table}, {f"K_{branch}": charge}, trust=True)
    assert found[0].value == pytest.approx(y.mean())


def test_the_command_line(ntuple: Path, tmp_path: Path, run: Run) -> None:
    path = TABLE.save(tmp_path / "eff.csv")
    words = ("--cut", "DLLK > 4", "--where", "abs(K_TRUEID) == 321")
    done = run("efficiency", ntuple, "--table", f"K={path}", *words)
    (one,) = pid_efficiency(
        {"K": path}, ntuple, cuts="DLLK > 4", where="abs(K_TRUEID) == 321"
    )
    assert done.code == 0, done.err
    assert f"{one.n_rows} rows" in done.out
    assert one.n_rows < 900
    one_line(
        run("efficiency", ntuple, "--table", f"K={path}", "--cut", "DLLp > 1"),
        "unknown variable 'DLLp'",
    )


def test_what_is_no_table(ntuple: Path, tmp_path: Path) -> None:
    path = TABLE.save(tmp_path / "eff.csv")
    frame = pd.read_csv(path)
    wrong = {
        "cut": frame.drop(columns="cut"),
        "no grid": frame.iloc[1:],
        "damaged": frame.assign(n_eff="x"),
        "real against generated": frame.rename(
            columns={"efficiency": "real_efficiency"}
        ),
    }
    for message, content in wrong.items():
        content.to_csv(tmp_path / "wrong.csv", index=False)
        with pytest.raises(DatasetError, match=message):
            EfficiencyTable.open(tmp_path / "wrong.csv")
    with pytest.raises(DatasetError, match=r"no such table .*closest: 'eff.csv'"):
        EfficiencyTable.open(tmp_path / "ef.csv")
    with pytest.raises(DatasetError, match="is a pickle, which can run code"):
        pid_efficiency({"K": tmp_path / "eff.pkl"}, ntuple)
    with pytest.raises(MapError, match=r"eff.csv has no cut 'DLLK > 5'"):
        pid_efficiency({"K": path}, ntuple, cuts="DLLK > 5")
    with pytest.raises(ValueError, match="K has a table of efficiencies: it knows no"):
        pid_efficiency({"K": path}, ntuple, species_from="TRUEID")
    with pytest.raises(ValueError, match="there is nothing to correct"):
        pid_efficiency({"K": path}, ntuple, correction=False)
    in_gev = draw() | {"K_P": draw()["K_P"] / 1000}
    write_trees(tmp_path / "gev.root", {"T": in_gev})
    with pytest.raises(PidganError, match="looks like GeV"):
        pid_efficiency({"K": path}, tmp_path / "gev.root", cuts="DLLK > 0")


def test_periods_are_weighted_by_luminosity(ntuple: Path) -> None:
    first, second = TABLE, make_table(seed=5)
    up, down = (
        pid_efficiency({"K": table}, ntuple, cuts="DLLK > 4").estimates
        for table in (first, second)
    )
    (found,) = up * 0.6 + down * 0.4
    place = bins_of(draw(), "K")
    e, variance = (
        [getattr(t, name)[1].reshape(-1) for t in (first, second)]
        for name in ("efficiency", "variance")
    )
    mixed = 0.6 * e[0] + 0.4 * e[1]
    assert found.value == pytest.approx(mixed[place].mean())
    f = np.bincount(place, minlength=6) / len(place)
    errors = f**2 @ (0.36 * variance[0] + 0.16 * variance[1])
    assert found.syst["calibration"] == pytest.approx(math.sqrt(errors))
    # The rows are the same: their fluctuations do not average out.
    spread = mixed[place] - found.value
    assert found.stat == pytest.approx(
        math.sqrt((spread**2).sum()) / len(place), rel=1e-3
    )
