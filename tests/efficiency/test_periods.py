"""Efficiencies of periods, combined by their shares of the luminosity."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from click.testing import CliRunner
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.application.apply import apply
from pidgan.cli.group import cli
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.period_maps import check_shares
from pidgan.efficiency.periods import columns_of_periods, efficiency_of_periods
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import MapError
from pidgan.files.tables import write_trees

UP = ToyGenerator(card=make_card())
DOWN = ToyGenerator(card=make_card(seed=2), offset=-0.8)
CUT = "DLLk > 1"


def make_map(generator: ToyGenerator, shift: float, **given: Any) -> EfficiencyMap:
    rng = np.random.default_rng(1)
    x = np.stack([rng.uniform(3e3, 1e5, 3000), rng.uniform(1.5, 5, 3000)], axis=1)
    y = location(x) + rng.standard_normal((3000, 2)) + shift
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    rows = pd.DataFrame(columns | {"weight": np.ones(3000)})
    settings: dict[str, Any] = {"cuts": [CUT], "repeats": 2, "progress": False}
    return run_systematics(generator, rows, **{**settings, **given})


MAPS = {"up": make_map(UP, 0.0), "down": make_map(DOWN, -0.8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("periods")
    rng = np.random.default_rng(3)
    columns = {
        f"{track}_{name}": rng.uniform(*ends, 2000)
        for track in ("K", "h")
        for name, ends in {"P": (5e3, 9e4), "ETA": (2.0, 4.5)}.items()
    }
    write_trees(path / "in.root", {"T": columns})
    for old, new, generator in (("in", "one", UP), ("one", "both", DOWN)):
        suffix = "_up" if generator is UP else "_down"
        tracks = {"K": generator, "h": generator}
        apply(tracks, path / f"{old}.root", path / f"{new}.root", suffix=suffix)
    for name, own in MAPS.items():
        own.save(path / f"{name}.json")
    return path


def run(folder: Path, *words: object) -> tuple[int, str]:
    """Exit code, and what is printed on both streams."""
    texts = ["efficiency", str(folder / "both.root"), "-q", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = CliRunner().invoke(cli, texts)
    message = "" if found.exception is None else str(found.exception)
    return found.exit_code, found.output + message


def maps(*shares: float, track: str = "") -> Sequence[str]:
    start = f"{track}=" if track else ""
    pairs = zip(("up", "down"), shares, strict=False)
    return [w for n, share in pairs for w in ("--map", f"{start}{n}.json={share:g}")]


def test_the_command_gives_the_mean_of_the_periods(folder: Path) -> None:
    parts = [
        pid_efficiency({"K": MAPS[name]}, folder / "both.root", suffix=f"_{name}")
        for name in ("up", "down")
    ]
    expected = parts[0].estimates * 0.6 + parts[1].estimates * 0.4
    (wanted,) = expected
    assert abs(parts[0][0].value - parts[1][0].value) > 0.05
    for words in (("--track", "K", *maps(0.6, 0.4)), maps(0.6, 0.4, track="K")):
        code, text = run(folder, *words, "--json")
        assert code == 0
        (found,) = json.loads(text)["results"]
        assert found["value"] == pytest.approx(wanted.value)
        assert found["stat"] == pytest.approx(wanted.stat)
        assert found["total"] == pytest.approx(wanted.total)
        assert found["syst"] == pytest.approx(wanted.syst)
        assert found["n_rows"] == 2000
        generated = 0.6 * parts[0][0].generated + 0.4 * parts[1][0].generated
        assert found["generated"] == pytest.approx(generated)
    # The rows are the same, and with them their conditions.
    apart = np.hypot(0.6 * parts[0][0].stat, 0.4 * parts[1][0].stat)
    assert wanted.stat > 1.1 * apart
    assert run(folder, "--track", "K", *maps(1.0))[0] == 0


def test_periods_of_two_tracks_in_bins(folder: Path) -> None:
    words = (*maps(0.6, 0.4, track="K"), *maps(0.6, 0.4, track="h"))
    code, text = run(folder, *words, "--binning", "K_P=5e3,3e4,9e4", "--json")
    assert code == 0
    found = json.loads(text)
    assert len(found["results"]) == 2
    assert np.shape(found["covariance"]) == (2, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            maps(0.6, 0.5),
            "0.6, 0.5, which sum to 1.1, expected 1; in these",
        ),
        (maps(0.6), "shares of periods are 0.6, which sum to 0.6, expected 1"),
        (maps(1.5, -0.5), "shares of periods are 1.5, -0.5, expected above 0"),
        (
            ("--map", "up.json=0.6", "--map", "down.json"),
            "'down.json' has no share, expected down.json=SHARE",
        ),
        (
            ("--map", "up.json=0.6", "--map", "dwn.json=0.4"),
            "closest: 'down.json'",
        ),
        ((*maps(0.6, 0.4), "--cut", "DLLk > 2"), "has no cut 'DLLk > 2'"),
    ],
)
def test_periods_that_do_not_fit_are_refused(
    words: Sequence[str], message: str, folder: Path
) -> None:
    code, text = run(folder, "--track", "K", *words)
    assert code != 0
    assert message in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"binning": {"P": (3e3, 2e4, 1e5)}},
            "map of period 2 has inner edges P at 20000, expected P at 10000, 30000",
        ),
        (
            {"cuts": ["DLLk > 2"]},
            "has cuts DLLk > 2, expected DLLk > 1, as that of",
        ),
        ({"where": "ETA > 2"}, "has denominator"),
    ],
)
def test_maps_that_differ_are_refused(
    changes: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    make_map(DOWN, -0.8, **changes).save(tmp_path / "other.json")
    other = tmp_path / "other.json"
    code, text = run(
        folder, "--track", "K", "--map", "up.json=0.5", "--map", f"{other}=0.5"
    )
    assert code != 0
    assert message in text


def test_a_period_of_another_species_is_refused(folder: Path, tmp_path: Path) -> None:
    pion = ToyGenerator(
        card=make_card(species="pi+", sample=make_sample(species="pi+"))
    )
    path, *_ = make_map(pion, 0.0).save(tmp_path / "pion.json")
    words = ("--map", "up.json=0.5", "--map", f"{path}=0.5")
    code, text = run(folder, "--track", "K", *words)
    assert (code, "has species pi+, expected K+" in text) == (1, True)


def columns_of(
    folder: Path, periods: Any, shares: Sequence[float] = (1.0,), **options: Any
) -> dict[str, Any]:
    """Columns that are written for the tracks of the toy."""
    name = f"columns-{len(list(folder.iterdir()))}.root"
    source, output = folder / "both.root", folder / name
    columns_of_periods(periods, shares, source, output, **options)
    with uproot.open(folder / name) as file:
        found: dict[str, Any] = file["T"].arrays(library="np")
    return found


def test_columns_are_the_mean_of_the_periods(folder: Path) -> None:
    periods = [{"K": MAPS[name], "h": MAPS[name]} for name in ("up", "down")]
    both = columns_of(folder, periods, shares=[0.6, 0.4], cuts=CUT)
    apart = [
        columns_of(folder, [own], suffix=f"_{name}", cuts=CUT)
        for own, name in zip(periods, ("up", "down"), strict=True)
    ]
    for name in ("K_PIDCalib", "PIDCalib"):
        effs, errs = ([one[f"{name}{n}"] for one in apart] for n in ("Eff", "Err"))
        mean, error = (
            0.6 * effs[0] + 0.4 * effs[1],
            np.hypot(0.6 * errs[0], 0.4 * errs[1]),
        )
        np.testing.assert_allclose(both[f"{name}Eff"], mean, rtol=1e-12)
        np.testing.assert_allclose(both[f"{name}Err"], error, rtol=1e-9)
    code, _ = run(
        folder,
        *(*maps(0.6, 0.4, track="K"), *maps(0.6, 0.4, track="h")),
        *("--columns", "command.root"),
    )
    assert code == 0
    with uproot.open(folder / "command.root") as file:
        np.testing.assert_array_equal(
            file["T"]["PIDCalibEff"].array(library="np"), both["PIDCalibEff"]
        )


def test_an_error_that_periods_share_is_one_error(folder: Path) -> None:
    # The pion map is the same in both periods, and its columns have one suffix.
    rows = folder / "both.root"
    given: dict[str, Any] = {"cuts": CUT, "suffix": "_up"}
    alone = columns_of(folder, [{"h": MAPS["up"]}], **given)
    same = [{"h": MAPS["up"]}] * 2
    both = columns_of(folder, same, shares=[0.3, 0.7], **given)
    for name in ("h_PIDCalibEff", "h_PIDCalibErr"):
        np.testing.assert_allclose(both[name], alone[name], rtol=1e-9)
    found = efficiency_of_periods(
        same, [0.3, 0.7], rows, evaluate=partial(pid_efficiency, cuts=CUT), suffix="_up"
    )
    assert found[0].syst["calibration"] > 0


def test_variations_of_periods_have_the_whole_variance(folder: Path) -> None:
    periods = [{"K": MAPS["up"]}, {"K": MAPS["down"]}]
    found = columns_of(
        folder,
        periods,
        shares=[0.6, 0.4],
        cuts=CUT,
        eigenvariations=True,
        replicas=200,
    )
    value = found["PIDCalibEff"]
    variance = found["PIDCalibErr"] ** 2 + (found["PIDCalibEff_filling"] - value) ** 2
    shifts = [
        v - value
        for n, v in found.items()
        if n.startswith("PIDCalibEff_") and "replica" not in n
    ]
    assert {"PIDCalibEff_K_1_calibration_1", "PIDCalibEff_K_2_binning"} <= set(found)
    np.testing.assert_allclose(np.sum(np.square(shifts), axis=0), variance, rtol=1e-3)
    drawn = np.array([v for n, v in found.items() if "replica" in n])
    assert np.median(drawn.std(axis=0) / found["PIDCalibErr"]) == pytest.approx(
        1, abs=0.1
    )


def test_columns_refuse_periods_without_their_shares(folder: Path) -> None:
    one = {"K": MAPS["up"]}
    for given, shares, message in (
        ([one, one], [1.0], "maps of 2 periods and 1 shares, expected a share"),
        ([one], [0.5, 0.5], "maps of 1 periods and 2 shares"),
    ):
        with pytest.raises(ValueError, match=message):
            columns_of(folder, given, shares=shares, cuts=CUT)
    with pytest.raises(MapError, match=r"sum to 0\.9, expected 1"):
        columns_of(folder, [one, one], shares=[0.5, 0.4], cuts=CUT)


def test_matrix_and_workspace_are_those_of_the_mean(folder: Path) -> None:
    words = ("--track", "K", *maps(0.6, 0.4), "--cut", CUT, "--json")
    code, text = run(folder, *words, "--pyhf", "w.json", "--matrix", "m.json")
    assert code == 0
    (mean,) = json.loads(text[text.index("{\n") :])["results"]
    matrix = json.loads((folder / "m.json").read_text())
    assert matrix["values"][0][0] == pytest.approx(mean["value"])
    assert matrix["errors"][0][0] == pytest.approx(mean["total"])
    space = json.loads((folder / "w.json").read_text())
    (sample,) = space["channels"][0]["samples"]
    assert sample["data"][0] == pytest.approx(2000 * mean["value"])
    up = [m["data"]["hi"] - 1 for m in sample["modifiers"] if m["type"] == "normsys"]
    assert mean["value"] * np.sqrt(np.sum(np.square(up))) == pytest.approx(
        mean["total"], rel=0.01
    )


def test_shares_sum_to_one() -> None:
    check_shares([1 / 3, 1 / 3, 1 / 3])
    for shares in ([0.5, 0.4], [0.5, 0.5001], [np.nan, 1.0], [1.0, 0.0]):
        with pytest.raises(MapError, match="shares of periods are"):
            check_shares(shares)


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_pyhf_and_cabinetry_give_the_total_of_the_mean(folder: Path) -> None:
    pyhf = pytest.importorskip("pyhf")
    cabinetry = pytest.importorskip("cabinetry")
    words = (*maps(0.6, 0.4, track="K"), "--binning", "K_P=5e3,3e4,6e4,9e4")
    code, text = run(folder, *words, "--pyhf", "fit.json", "--json")
    assert code == 0, text
    spec = json.loads((folder / "fit.json").read_text())
    pyhf.Workspace(spec)  # valid by its schema
    model, _ = cabinetry.model_utils.model_and_data(spec)
    prediction = cabinetry.model_utils.prediction(model)
    (yields,) = prediction.model_yields[0]
    errors = prediction.total_stdev_model_bins[0][-1]
    results = json.loads(text[text.index("{") :])["results"]
    assert len(results) == len(yields) == 3
    for own, error, result in zip(yields, errors, results, strict=True):
        assert error / own == pytest.approx(result["total"] / result["value"], rel=0.01)
