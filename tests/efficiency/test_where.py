"""Denominators: efficiencies among the rows and responses that pass another cut."""

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, location, make_card
from toy_map import combine_rows

from pidgan.efficiency import pid_efficiency as pid_efficiency_module
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.efficiency.systematics import run_systematics
from pidgan.efficiency.table import efficiency_table
from pidgan.errors import (
    CutError,
    DatasetError,
    MapError,
    NtupleError,
    PidganWarning,
)
from pidgan.files.tables import Source, read_columns, write_trees

# The columns are drawn here: nothing proves that a bundle made them.
pid_efficiency = partial(pid_efficiency_module.pid_efficiency, trust=True)

GENERATOR = ToyGenerator(card=make_card())
BINNING = {"P": (3e3, 1e4, 2e4, 4e4, 1e5), "ETA": (1.5, 2.8, 3.6, 5.0)}
N_TOYS = int(os.environ.get("PIDGAN_TOYS", "20"))


def draw_conditions(rng: np.random.Generator, n: int) -> np.ndarray:
    p = np.clip(3e3 + rng.gamma(2.0, 9e3, n), 3e3, 99e3)
    return np.stack([p, np.clip(rng.normal(3.3, 0.6, n), 1.6, 4.9)], axis=1)


def draw_real(rng: np.random.Generator, x: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Targets of the generator, moved by a wave in P and a slope in ETA."""
    u, v = np.log(x[:, 0] / 2e4), x[:, 1] - 3.2
    wave = shift[:2, np.newaxis] * np.sin(1.5 * u) + shift[2:, np.newaxis] * v
    z = rng.standard_normal((len(x), 2))
    spread = np.stack([z[:, 0], z.sum(axis=1) / math.sqrt(2)], axis=1)
    return np.asarray(location(x) + spread + wave.T)


def draw_frame(seed: int, n: int = 6000, *, shift: Any = (0, 0, 0, 0)) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = draw_conditions(rng, n)
    y = draw_real(rng, x, np.asarray(shift, dtype=np.float64))
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    w = rng.choice([1.2, -0.4], n, p=[0.9, 0.1])
    polarity = rng.choice([-1.0, 1.0], n)
    return pd.DataFrame({**columns, "weight": w, "probe_polarity": polarity})


FRAME = draw_frame(1, shift=(0.3, -0.2, 0.1, 0.2))


def same(first: EfficiencyMap, second: EfficiencyMap, *, tolerance: float) -> None:
    for name in ("generated", "discrepancy", "covariance", "raw_covariance", "n_eff"):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("where", ["P < 9e4 & ETA < 4.5", "probe_polarity == 1"])
def test_terms_on_columns_choose_rows(where: str) -> None:
    chosen = FRAME.query(where.replace("&", "and"))
    options: dict[str, Any] = {"cuts": ["DLLk > 2", "DLLp > 0"], "binning": BINNING}
    found = closure_table(GENERATOR, FRAME, where=where, **options)
    alone = closure_table(GENERATOR, chosen, **options)
    np.testing.assert_array_equal(found.frame(), alone.frame())
    of_map = run_systematics(GENERATOR, FRAME, where=where, **options)
    same(of_map, run_systematics(GENERATOR, chosen, **options), tolerance=0)
    assert of_map.where == where
    assert not of_map.denominator_shift.any()


def test_a_denominator_that_everything_passes_changes_nothing() -> None:
    options: dict[str, Any] = {"cuts": ["DLLk > 2", "DLLp > 0"], "binning": BINNING}
    found = closure_table(GENERATOR, FRAME, where="DLLp > -500", **options)
    whole = closure_table(GENERATOR, FRAME, **options)
    for name in ("covariance", "difference", "difference_error", "moments", "n_moment"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(whole, name), rtol=1e-9
        )
    for one, other in ((found.real, whole.real), (found.generated, whole.generated)):
        np.testing.assert_allclose(
            one.frame().iloc[:, 1:].astype(float),
            other.frame().iloc[:, 1:].astype(float),
        )
    with_where = run_systematics(GENERATOR, FRAME, where="DLLp > -500", **options)
    same(with_where, run_systematics(GENERATOR, FRAME, **options), tolerance=1e-6)
    assert not with_where.denominator_shift.any()


def test_a_denominator_of_targets_is_a_ratio() -> None:
    where, cut = "DLLp > 0.5", "DLLk > 2"
    options: dict[str, Any] = {"binning": BINNING}
    found = closure_table(GENERATOR, FRAME, cuts=cut, where=where, **options)
    both, among = f"{cut} & {where}", where
    whole = closure_table(GENERATOR, FRAME, cuts=[both, among], **options)
    for one, other in ((found.real, whole.real), (found.generated, whole.generated)):
        np.testing.assert_allclose(
            one.efficiency[0], other.efficiency[0] / other.efficiency[1], rtol=1e-9
        )
    # The numerator may name the denominator or not.
    again = closure_table(GENERATOR, FRAME, cuts=both, where=where, **options)
    np.testing.assert_array_equal(found.difference, again.difference)
    # Linear propagation of the joint covariance, in each bin.
    e = np.concatenate([whole.real.efficiency, whole.generated.efficiency])
    e = e.reshape(4, -1)
    covariance = whole.covariance.reshape(4, 4, -1)
    for b in range(e.shape[1]):
        a_r, m_r, a_g, m_g = e[:, b]
        slope = np.array([-1 / m_r, a_r / m_r**2, 1 / m_g, -a_g / m_g**2])
        expected = math.sqrt(slope @ covariance[:, :, b] @ slope)
        variance = found.covariance.reshape(2, 2, -1)[:, :, b]
        step = np.array([-1, 1])
        assert math.sqrt(step @ variance @ step) == pytest.approx(expected, rel=1e-9)


def test_tables_of_any_columns_have_denominators() -> None:
    table = efficiency_table(FRAME, "DLLk > 2", where="DLLp > 0 & probe_polarity < 0")
    chosen = FRAME[(FRAME.DLLp > 0) & (FRAME.probe_polarity < 0)]
    alone = efficiency_table(chosen, "DLLk > 2")
    np.testing.assert_array_equal(table.efficiency, alone.efficiency)
    with pytest.raises(DatasetError, match="none of the 6000 rows passes"):
        efficiency_table(FRAME, "DLLk > 2", where="DLLp > 1e4")
    with pytest.raises(CutError, match=r"unknown variable 'DLLq'.*DLL"):
        efficiency_table(FRAME, "DLLk > 2", where="DLLq > 0")


def test_a_denominator_of_a_table_in_another_unit_is_told() -> None:
    with pytest.warns(PidganWarning, match=r"where 'P > 3': all 6000 rows pass; check"):
        efficiency_table(FRAME, "DLLk > 0", where="P > 3")


@pytest.mark.filterwarnings("ignore:cut .* fewer than 20")
def test_bins_without_a_generated_response_in_the_denominator() -> None:
    fine = {"P": tuple(np.linspace(3e3, 1e5, 15)), "ETA": tuple(np.linspace(1.5, 5, 9))}
    where = "DLLp > 3"  # few responses, real or generated
    options: dict[str, Any] = {"cuts": "DLLk > 2", "where": where, "repeats": 1}
    found = run_systematics(GENERATOR, FRAME, binning=fine, **options)
    record = closure_table(GENERATOR, FRAME, binning={}, **options)
    assert np.isfinite(found.nominal).all()
    assert np.isfinite(found.error).all()
    own = found.averages["DLLk > 2"]
    assert own["real"] == pytest.approx(float(record.real.efficiency[0]))
    assert abs(own["corrected"] - own["real"]) < 5 * own["corrected_error"]


def quoted(seed: int, x: np.ndarray, z: np.ndarray) -> tuple[float, float, float]:
    """Value, uncertainty and truth of the efficiency of one pseudo-experiment."""
    rng = np.random.default_rng([seed, 7])
    shift = rng.normal(0, 0.25, 4)
    frame = draw_frame(seed, 4000, shift=shift)
    found = run_systematics(
        GENERATOR,
        frame,
        cuts="DLLk > 2.5",
        where="DLLp > 1",
        binning=BINNING,
        seed=seed + 1,
        repeats=4,
    )
    y = GENERATOR.generate(x, z)
    counted = y[:, 1] > 1
    (one,) = combine_rows(
        found,
        [0],
        place=bin_index({"P": x[counted, 0], "ETA": x[counted, 1]}, BINNING),
        passed=(y[counted, 0] > 2.5)[np.newaxis],
        weights=np.ones(np.count_nonzero(counted)),
    )
    many = draw_real(rng, np.repeat(POPULATION, 4, axis=0), shift)
    many = many[many[:, 1] > 1]
    return one.value, one.total, float((many[:, 0] > 2.5).mean())


POPULATION = draw_conditions(np.random.default_rng(0), 25_000) * [1.3, 0.97]


@pytest.mark.filterwarnings("ignore:.*lie outside the efficiency map")
def test_quoted_uncertainty_covers_the_truth() -> None:
    """Generated responses and denominators are wrong; 200 toys are for a study."""
    pulls = []
    for seed in range(N_TOYS):
        rng = np.random.default_rng([seed, 8])
        x = POPULATION[rng.integers(len(POPULATION), size=8000)]
        value, error, truth = quoted(seed, x, rng.standard_normal((len(x), 3)))
        pulls.append((value - truth) / error)
    size = np.abs(pulls)
    print(f"{N_TOYS} toys: {(size < 1).mean():.3f} within 1, {(size < 2).mean():.3f}")
    spread = 3 * math.sqrt(0.68 * 0.32 / N_TOYS)
    assert 0.68 - spread < (size < 1).mean() < 0.78 + spread
    assert (size < 2).mean() > 0.95 - spread


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    x = draw_conditions(rng, 3000)
    y = GENERATOR.generate(x, rng.standard_normal((len(x), 3)))
    columns = {"K_P": x[:, 0], "K_ETA": x[:, 1], "K_DLLk": y[:, 0], "K_DLLp": y[:, 1]}
    columns |= {
        "K_polarity": rng.choice([-1, 1], 3000),
        "nPVs": rng.integers(1, 6, 3000),
    }
    path = tmp_path / "analysis.root"
    write_trees(path, {"DecayTree": columns})
    return path


def make_map(where: str | None) -> EfficiencyMap:
    return run_systematics(
        GENERATOR, FRAME, cuts="DLLk > 2", where=where, binning=BINNING
    )


def test_efficiency_of_an_analysis_among_those_that_count(
    ntuple: Path, tmp_path: Path
) -> None:
    where = "DLLp > 1 & probe_polarity == 1"
    path = tmp_path / "map.json"
    made = make_map(where)
    made.save(path)
    opened = EfficiencyMap.open(path)
    assert opened.where == where
    text = opened.text()
    assert (
        "of all reference rows in the bins, among DLLp > 1 & probe_polarity == 1"
        in text
    )
    whole = closure_table(GENERATOR, FRAME, cuts="DLLk > 2", where=where, binning={})
    real = 100 * float(whole.real.efficiency[0])
    own = opened.averages["DLLk > 2"]
    assert 100 * own["real"] == pytest.approx(real)
    assert own["corrected"] == pytest.approx(
        own["real"], abs=4 * own["corrected_error"]
    )
    assert f"{real:.1f}" in text
    assert '"schema_version": 3' in path.read_text().replace('\\"', '"')
    (one,) = pid_efficiency({"K": opened}, ntuple, where=where + " & nPVs < 4")
    names = ["K_P", "K_ETA", "K_DLLk", "K_DLLp", "K_polarity", "nPVs"]
    rows = pd.DataFrame(read_columns(Source(str(ntuple), "DecayTree"), names))
    use = (rows.K_DLLp > 1) & (rows.K_polarity == 1) & (rows.nPVs < 4)
    counted = rows[use]
    assert one.n_rows == len(counted)
    place = bin_index({"P": counted.K_P, "ETA": counted.K_ETA}, made.binning)
    weights = 1 + made.denominator_shift[place]
    assert np.ptp(weights) > 0.05
    passed = counted.K_DLLk.to_numpy() > 2
    mean = partial(np.average, weights=weights)
    assert one.generated == pytest.approx(mean(passed))
    assert one.correction == pytest.approx(mean(made.discrepancy[0][place]))
    value = passed + made.discrepancy[0][place]
    modes = made.denominator_modes[:, place]
    shifts = (modes * (value - mean(value))).sum(axis=1) / weights.sum()
    assert one.syst["denominator"] == pytest.approx(np.sqrt((shifts**2).sum()))
    # Without a correction, the whole error is an uncertainty.
    where_all = f"{where} & nPVs < 4"
    (plain,) = pid_efficiency({"K": opened}, ntuple, where=where_all, correction=False)
    assert plain.value == pytest.approx(passed.mean())
    bare = (made.denominator_shift[place] * (passed - passed.mean())).mean()
    assert plain.syst["denominator"] > 0.5 * abs(bare)
    whole = pid_efficiency({"K": opened}, ntuple, where=f"{where} & nPVs < 4")
    assert whole.n_not_among == len(rows) - len(counted)
    text = whole.text()
    assert "among DLLp > 1 & nPVs < 4 & polarity == 1" in text
    assert f"left out: {len(rows) - len(counted)}" in text
    # With the prefix of the track, and in chunks.
    prefixed = "K_polarity == 1 & K_DLLp > 1 & nPVs < 4"
    again = pid_efficiency({"K": path}, ntuple, where=prefixed, chunk=700)
    assert again[0].value == pytest.approx(one.value, rel=1e-12)


@pytest.mark.parametrize(
    ("of_map", "asked", "message"),
    [
        ("DLLp > 1", None, r"among 'DLLp > 1'; .*without --where; give --where 'DLLp"),
        (
            "DLLp > 1",
            "DLLp > 2",
            "got 'DLLp > 1' not asked for, with --where 'DLLp > 2'",
        ),
        (
            None,
            "DLLp > 1",
            "names a target, but .* those of all tracks; run systematics",
        ),
        ("probe_polarity == 1", "DLLp > 1", "got 'polarity == 1' not asked for"),
        ("probe_polarity == 1", None, "among 'probe_polarity == 1'"),
        ("P > 1e4", "P > 1e4 & DLLp > 0", "names a target, but .* among 'P > 1e4'"),
    ],
)
def test_another_denominator_is_refused(
    ntuple: Path, tmp_path: Path, of_map: str, asked: str, message: str
) -> None:
    made = make_map(of_map)
    with pytest.raises(MapError, match=message):
        pid_efficiency({"K": made}, ntuple, where=asked)
    out = tmp_path / "out.root"
    with pytest.raises(MapError, match=message):
        write_efficiency_columns({"K": made}, ntuple, out, where=asked, trust=True)


def test_wrong_denominators_are_named(ntuple: Path) -> None:
    made = make_map(None)
    with pytest.raises(NtupleError, match=r"needs 'K_polarty'.*closest: 'K_polarity'"):
        pid_efficiency({"K": made}, ntuple, where="polarty == 1")
    with pytest.raises(MapError, match=r"0 of 6000 rows .* positive sum"):
        make_map("P > 1e6")
    with pytest.raises(MapError, match=r"0 of 6000 real rows"):
        make_map("DLLp > 150")
    with pytest.raises(CutError, match="unknown variable 'probe_polarty'"):
        make_map("probe_polarty == 1")
    with pytest.raises(CutError, match="joins a target with 'probe_polarity'"):
        make_map("DLLp > 1 | probe_polarity == 1")
    maps = {"K": made, "pi": made}
    with pytest.raises(CutError, match="is about several tracks"):
        pid_efficiency(maps, ntuple, where="K_P > pi_P")
