"""Against PIDCalib2's own code and tables, on real protons; skipped without it.

`pip install ".[examples]"` has the package. Its files are pickles: they are read here,
from an installed package, and nowhere in pidgan.
"""

import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.table import EfficiencyTable, efficiency_table
from pidgan.errors import PidganWarning
from pidgan.files.tables import Source, read_columns, write_trees
from pidgan.sample.loading import load_binning

spec = importlib.util.find_spec("pidcalib2")
if spec is None or not spec.submodule_search_locations:
    pytest.skip("pidcalib2 is not installed", allow_module_level=True)
DATA = Path(spec.submodule_search_locations[0]) / "tests/test_data"
SHIPPED = "effhists-2024_WithUT_block7_v0-down-P_Lc-DLLp>5-P.ETA.nLongTracks.pkl"
CUTS = ("DLLp > 5", "DLLp > 20", "DLLp > 5 & P < 40000")
NAMES = ("P", "ETA", "nLongTracks")


@pytest.fixture(scope="module")
def protons() -> pd.DataFrame:
    return pd.read_pickle(DATA / "cal_test_data_run3_lc.pkl")


@pytest.fixture(scope="module")
def utils() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own dependencies
        return pytest.importorskip("pidcalib2.utils")


def peer_histograms(utils: Any, frame: pd.DataFrame) -> dict[str, Any]:
    """Sums and efficiencies from PIDCalib2's functions, by cut."""
    histograms = {"total": utils.make_hist(frame, "P", list(NAMES))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what pandas has deprecated
        for cut in CUTS:
            passed = frame.copy()
            utils.apply_cuts(passed, [cut])
            histograms[f"passing_{cut}"] = utils.make_hist(passed, "P", list(NAMES))
        return utils.create_eff_histograms(histograms)


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_same_efficiencies_and_errors(utils: Any, protons: pd.DataFrame) -> None:
    peer = peer_histograms(utils, protons)
    table = efficiency_table(
        protons,
        CUTS,
        binning="run3_hadrons",
        weights=protons["sWeight"].to_numpy(),
        variance="pidcalib",
    )
    usable = table.sum_weights > 0  # PIDCalib2 divides by negative sums too
    assert np.count_nonzero(usable) > 200
    for i, cut in enumerate(CUTS):
        expected = peer[f"eff_{cut}"]
        np.testing.assert_allclose(
            table.efficiency[i][usable], expected.values()[usable], atol=1e-6, rtol=0
        )
        np.testing.assert_allclose(
            table.variance[i][usable], expected.variances()[usable], rtol=1e-6
        )


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_its_histograms_make_the_same_table(utils: Any, protons: pd.DataFrame) -> None:
    peer = peer_histograms(utils, protons)
    passed = {cut: peer[f"passing_{cut}"] for cut in CUTS}
    table = EfficiencyTable.from_hists(peer["total"], passed, variance="wilson")
    ours = efficiency_table(
        protons,
        CUTS,
        binning="run3_hadrons",
        weights=protons["sWeight"].to_numpy(),
    )
    assert tuple(table.binning) == NAMES
    for name in ("efficiency", "lower", "upper", "sum_passed2", "n_eff_passed"):
        found, expected = getattr(table, name), getattr(ours, name)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_same_columns_as_ref_calib(
    utils: Any, protons: pd.DataFrame, tmp_path: Path
) -> None:
    cut = "DLLp > 20"
    peer = peer_histograms(utils, protons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = {"eff": peer[f"eff_{cut}"]}
        rng = np.random.default_rng(1)
        chosen = rng.integers(len(protons), size=(2, 4000))
        p, eta = protons["P"].to_numpy()[chosen], protons["ETA"].to_numpy()[chosen]
        rows = {"a_P": p[0], "b_P": 1.1 * p[1], "a_ETA": eta[0], "b_ETA": eta[1]}
        rows["nLongTracks"] = protons["nLongTracks"].to_numpy()[chosen[0]]
        frame = pd.DataFrame(rows)
        histograms = {"a": own, "b": own}
        names = {name: name for name in NAMES}
        frame = utils.add_bin_indices(frame, ["a", "b"], names, histograms, "")
        frame = utils.add_efficiencies(frame, ["a", "b"], histograms, "")
        frame = utils.assign_overall_eff(frame, ["a", "b"])
    passed = {cut: peer[f"passing_{cut}"]}
    table = EfficiencyTable.from_hists(peer["total"], passed, variance="pidcalib")
    path = table.save(tmp_path / "table.csv")
    write_trees(tmp_path / "in.root", {"DecayTree": rows})
    maps = dict.fromkeys(("a", "b"), path)
    write_efficiency_columns(
        maps, tmp_path / "in.root", tmp_path / "out.root", cuts=cut
    )
    names_of = [f"{t}PIDCalib{n}" for t in ("a_", "b_", "") for n in ("Eff", "Err")]
    source = Source(str(tmp_path / "out.root"), "DecayTree")
    found = pd.DataFrame(read_columns(source, names_of))
    for track in ("a", "b"):
        # It divides by negative sums of weights, and takes the root of |variance|.
        usable = found[f"{track}_PIDCalibEff"].notna().to_numpy()
        assert usable.mean() > 0.9
        for name in ("Eff", "Err"):
            column = f"{track}_PIDCalib{name}"
            np.testing.assert_allclose(
                found[column][usable], frame[column][usable], rtol=1e-6, atol=1e-9
            )
    both = found["PIDCalibEff"].notna() & (frame["PIDCalibEff"] > 0)
    np.testing.assert_allclose(
        found["PIDCalibEff"][both], frame["PIDCalibEff"][both], rtol=1e-6
    )
    bins = ["a_PIDCalibBin", "b_PIDCalibBin"]
    apart = both & (frame[bins[0]] != frame[bins[1]])
    np.testing.assert_allclose(
        found["PIDCalibErr"][apart], frame["PIDCalibErr"][apart], rtol=1e-6
    )
    # Tracks in one bin have the same error, of which it does not know.
    same = both & ~apart
    assert same.any()
    ratio = found["PIDCalibErr"][same] / frame["PIDCalibErr"][same]
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=1e-6)
    mean = pid_efficiency(maps, tmp_path / "in.root", cuts=cut)[0].value
    assert mean == pytest.approx(found["PIDCalibEff"].mean())


def test_shipped_table_of_protons(protons: pd.DataFrame) -> None:
    with (DATA / SHIPPED).open("rb") as file:
        shipped = pickle.load(file)
    with (
        pytest.warns(PidganWarning, match="83 of 288 bins"),
        pytest.warns(PidganWarning, match=r"93 of 288 efficiencies lie outside \[0, 1"),
    ):
        table = efficiency_table(
            protons,
            "DLLp > 5",
            binning="run3_hadrons",
            weights=protons["sWeight"].to_numpy(),
            variance="pidcalib",
        )
    for axis, edges in zip(shipped.axes, table.binning.values(), strict=True):
        np.testing.assert_allclose(axis.edges, edges)
    usable = table.sum_weights > 0
    assert np.count_nonzero(usable) == 205
    np.testing.assert_allclose(
        table.efficiency[0][usable], shipped.values()[usable], atol=1e-6, rtol=0
    )
    np.testing.assert_allclose(
        table.error[0][usable], np.sqrt(shipped.variances()[usable]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("particle", ["Pi", "K", "P", "e", "Mu"])
def test_named_binnings_are_its_defaults(utils: Any, particle: str) -> None:
    from pidcalib2 import binning

    named = {"e": "electrons", "Mu": "muons"}.get(particle, "hadrons")
    for condition, edges in load_binning(named).items():
        expected = binning.get_binning(particle, condition)
        np.testing.assert_allclose(edges, expected, err_msg=condition)
