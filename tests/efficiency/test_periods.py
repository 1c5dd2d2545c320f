"""Efficiencies of periods, combined by their shares of the luminosity."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.application.apply import apply
from pidgan.cli.group import cli
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.periods import check_shares
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
        (
            (*maps(0.6, 0.4), "--columns", "c.root"),
            "--columns takes no maps with shares",
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


def test_shares_sum_to_one() -> None:
    check_shares([1 / 3, 1 / 3, 1 / 3])
    for shares in ([0.5, 0.4], [0.5, 0.5001], [np.nan, 1.0], [1.0, 0.0]):
        with pytest.raises(MapError, match="shares of periods are"):
            check_shares(shares)
