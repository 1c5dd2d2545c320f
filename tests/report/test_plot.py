"""Pictures of whatever the package makes: kinds, numbers, readable figures, files."""

import dataclasses
import inspect
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pidgan
from pidgan import higher
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.errors import NtupleError, PidganError
from pidgan.files.tables import write_table
from pidgan.report.binned import binned
from pidgan.report.coverage import Coverage
from pidgan.report.drawn_maps import mean_over
from pidgan.report.drawn_rows import scanned
from pidgan.report.opening import open_plotted
from pidgan.report.pictures import Pictures
from pidgan.report.plots import bins, canvas
from pidgan.report.plots.variables import Drawn, Panel, plot_variables
from pidgan.simulation import ANALYSIS_TREE

GOLDEN = Path(__file__).parents[1] / "golden"
CUT = "RichDLLk > 5"
NTUPLE = f"{GOLDEN / 'analysis.root'}:{ANALYSIS_TREE}"


def given(*names: str) -> list[str]:
    return [NTUPLE if name == "ntuple" else str(GOLDEN / name) for name in names]


@pytest.fixture(scope="module")
def shown() -> dict[str, Pictures]:
    """Pictures of every kind of thing."""
    return {
        "dataset": pidgan.plot(*given("kaon"), cuts=CUT),
        "both": pidgan.plot(*given("kaon", "kaon.onnx"), cuts=CUT),
        "bundle": pidgan.plot(*given("kaon.onnx", "ntuple"), cuts=CUT, track="Kplus"),
        "map": pidgan.plot(*given("kmap.json")),
        "histograms": pidgan.plot(*given("kmap.root")),
        "ntuple": pidgan.plot(*given("ntuple"), variables=["Kplus_P", "nTracks"]),
    }


def test_kinds_have_their_pictures(shown: dict[str, Pictures]) -> None:
    curves = [f"efficiency {CUT}", f"plane {CUT}"]
    assert list(shown["dataset"]) == ["mass fit", "conditions", "targets", *curves]
    assert list(shown["both"])[:4] == [
        *("mass fit", "conditions", "targets", "targets, logarithmic")
    ]
    assert list(shown["bundle"])[:2] == ["coverage", "coverage in planes"]
    assert "uncertainty" in shown["map"]
    assert list(shown["ntuple"]) == ["variables"]
    assert all(len(found) for found in shown.values())


def readable(figure: Figure) -> None:
    """Assert that labels of an axis do not overlap and that nothing is cut off."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    whole = figure.bbox
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        for axis, along in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(
                axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False
            )
            boxes = [
                text.get_window_extent(renderer)
                for place, text in ticks
                if text.get_visible() and text.get_text() and low <= place <= high
            ]
            ends = sorted(tuple(getattr(box, f"interval{along}")) for box in boxes)
            for (_, end), (start, _) in itertools.pairwise(ends):
                assert start >= end - 1, (axes.get_xlabel(), along)
            label = axis.label.get_window_extent(renderer)
            if axis.label.get_text():
                assert label.x0 >= whole.x0 - 1, axis.label.get_text()
                assert label.x1 <= whole.x1 + 1, axis.label.get_text()
                assert label.y0 >= whole.y0 - 1, axis.label.get_text()
                assert label.y1 <= whole.y1 + 1, axis.label.get_text()


def test_every_picture_is_readable(shown: dict[str, Pictures]) -> None:
    for kind, pictures in shown.items():
        for name in pictures:
            figure = pictures[name]
            readable(figure)
            assert figure.axes, (kind, name)
            assert pictures[name] is figure  # drawn once


def line_of(axes: object, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and the ends of the vertical bars of points with a label."""
    (container,) = [c for c in axes.containers if c.get_label() == label]  # type: ignore[attr-defined]
    x, y = container.lines[0].get_data()
    bars = container.lines[2][-1].get_segments()
    ends = np.array([[s[0, 1], s[1, 1]] if len(s) else [np.nan] * 2 for s in bars])
    return np.asarray(x), np.asarray(y), ends


def test_drawn_efficiencies_are_those_of_the_table(tmp_path: Path) -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    table = closure_table(bundle, cuts=CUT, binning={"P": (2e3, 15e3, 3e4, 2e5)})
    frame = table.frame()
    frame.to_csv(tmp_path / "table.csv", index=False)
    write_table(tmp_path / "table.parquet", frame)
    for source in (table, tmp_path / "table.csv", tmp_path / "table.parquet", frame):
        found = pidgan.plot(source)
        assert list(found) == [f"efficiency {CUT}"]
        bottom, top = found[f"efficiency {CUT}"].axes
        _, y, ends = line_of(top, "real")
        np.testing.assert_allclose(y, frame["real_efficiency"])
        np.testing.assert_allclose(ends, frame[["real_lower", "real_upper"]])
        (steps,) = [p for p in top.patches if p.get_label() == "generated"]
        np.testing.assert_allclose(
            steps.get_data().values, frame["generated_efficiency"]
        )
        difference = bottom.containers[0].lines[0].get_ydata()
        np.testing.assert_allclose(difference, frame["difference"])
        assert bottom.get_xlabel() == "P [GeV]"
        np.testing.assert_allclose(bottom.get_xlim(), (2, 200))


def test_planes_hold_the_numbers_of_the_table() -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    edges = {"P": (2e3, 3e4, 2e5), "ETA": (1.5, 3.3, 5.5)}
    table = closure_table(bundle, cuts=CUT, binning=edges)
    found = pidgan.plot(table)
    assert list(found) == [f"efficiency {CUT}", f"plane {CUT}"]
    axes = found[f"plane {CUT}"].axes[:4]
    drawn = [axis.collections[0].get_array() for axis in axes]
    arrays = (
        table.real.efficiency,
        table.generated.efficiency,
        table.difference,
        table.pull,
    )
    for mesh, expected in zip(drawn, arrays, strict=True):
        np.testing.assert_allclose(np.ma.filled(mesh, np.nan), expected[0].T)
    # The slices of the second condition are panels of their own.
    panels = found[f"efficiency {CUT}"].axes[1::2]
    assert [p.get_title(loc="left") for p in panels] == [
        "ETA 1.5 to 3.3",
        "ETA 3.3 to 5.5",
    ]


def test_efficiencies_without_bins_are_one_line_a_cut() -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    table = closure_table(bundle, cuts=[CUT, "RichDLLk > 0"], binning={})
    figure = pidgan.plot(table)["efficiency"]
    real = figure.axes[0].containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(real, 100 * table.real.efficiency)


def test_weighted_histograms_show_negative_bins() -> None:
    values = np.repeat([0.5, 1.5], [40, 60])
    weights = np.where(values < 1, -0.5, 1.0)
    edges = np.array([0.0, 1.0, 2.0])
    samples = [Drawn(values=values, weights=weights, label="real")]
    figure = plot_variables([Panel(name="y", samples=samples, edges=edges)])
    (axis,) = figure.axes
    _, y, ends = line_of(axis, "real")
    np.testing.assert_allclose(y, [-20.0, 60.0])
    error = np.sqrt([40 * 0.25, 60])
    np.testing.assert_allclose(ends, np.stack([y - error, y + error], axis=1))
    assert axis.get_ylim()[0] < -20 - error[0]


def test_weighted_rows_over_all_rows_are_the_share_of_signal() -> None:
    dataset = pidgan.Dataset.open(GOLDEN / "kaon")
    figure = pidgan.plot(dataset, variables=["nTracks"])["conditions"]
    bottom, top = figure.axes
    _, y, _ = line_of(top, "sWeighted")
    (steps,) = [p for p in top.patches if p.get_label() == "all rows"]
    counts, edges, _ = steps.get_data()
    x = dataset.conditions[:, dataset.sample.condition_names.index("nTracks")]
    inside = (x >= edges[0]) & (x <= edges[-1])
    assert np.nansum(y) == pytest.approx(dataset.weights[inside].sum())
    assert counts.sum() == inside.sum()
    share = bottom.containers[0].lines[0].get_ydata()
    known = np.isfinite(y) & (counts > 0)
    np.testing.assert_allclose(np.asarray(share)[known], (y / counts)[known])


def test_bins_follow_the_effective_rows() -> None:
    x = np.random.default_rng(1).normal(size=20_000)
    many, few = bins.edges_of(x), bins.edges_of(x[:2_000])
    weighted = bins.edges_of(x, np.where(np.arange(len(x)) % 10, 1.0, -8.0))
    assert len(many) > len(few)
    assert len(many) > len(weighted)
    assert np.diff(many) == pytest.approx(np.diff(many)[0])
    sums, errors = bins.fill(x, np.full(len(x), 2.0), many)
    np.testing.assert_allclose(errors**2, 2 * sums)


def test_mass_fit_is_drawn_with_its_figures() -> None:
    dataset = pidgan.Dataset.open(GOLDEN / "kaon")
    fit = dataset.info["fit"]
    bottom, top = pidgan.plot(dataset)["mass fit"].axes
    _, y, _ = line_of(top, "data")
    np.testing.assert_allclose(np.nan_to_num(y), fit["counts"])
    labels = {line.get_label(): line.get_ydata() for line in top.lines}
    signal, background = map(np.array, (fit["signal"], fit["background"]))
    np.testing.assert_allclose(labels["fit"], signal + background)
    np.testing.assert_allclose(labels["signal"], signal)
    written = " ".join(text.get_text() for text in top.texts)
    yields = [fit["yields"][kind][0] for kind in ("signal", "background")]
    assert f"signal {yields[0]:.0f}" in written
    assert f"({100 * yields[0] / sum(yields):.2f}" in written
    assert f"{fit['chi2']:.0f}/{fit['n_dof']}" in written
    assert bottom.get_ylabel() == "pull"
    assert f"purity {yields[0] / sum(yields):.1%}" in dataset.text()


def test_curves_of_a_map_are_means_over_its_bins() -> None:
    found = pidgan.EfficiencyMap.open(GOLDEN / "kmap.json")
    name = next(iter(found.binning))
    mean = mean_over(found, [name])
    n = found.n_eff.reshape(found.shape)
    axes = tuple(range(1, n.ndim))
    nominal = found.nominal.reshape(-1, *found.shape)
    expected = (nominal * n).sum(axis=tuple(a + 1 for a in axes)) / n.sum(axis=axes)
    np.testing.assert_allclose(mean.kinds["corrected"].value, expected)
    whole = binned(found)
    assert whole.units == tuple(
        v["unit"] for v in found.metadata["conditions"] if v["name"] in found.binning
    )
    # A bin alone has the uncertainty of the map.
    alone = mean_over(found, list(found.binning))
    errors = found.error.reshape(-1, *found.shape)
    filled = np.isfinite(alone.kinds["corrected"].value)
    np.testing.assert_allclose(
        alone.kinds["corrected"].error[filled], errors[filled], rtol=1e-6, atol=1e-12
    )


def test_tracks_outside_the_trained_range_are_counted() -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    ranges = {v.name: v.range for v in bundle.card.conditions}
    middle = {name: (low + high) / 2 for name, (low, high) in ranges.items()}
    frame = pd.DataFrame({f"K_{name}": [x] * 10 for name, x in middle.items()})
    frame = frame.rename(columns={"K_nTracks": "nTracks"})
    frame.loc[:2, "K_P"] = ranges["P"][1] * 1.5
    frame.loc[9, "K_P"] = np.nan
    frame["w"] = [2.0] * 3 + [1.0] * 7
    found = pidgan.plot(bundle, frame, cuts=CUT)
    assert found.notes[0].startswith("P: 40.00% of 10 tracks outside")
    assert found.notes[1].startswith("ETA: 0.00%")
    weighted = pidgan.plot(bundle, frame, cuts=CUT, weights="w")
    assert weighted.notes[0].startswith(f"P: {7 / 13:.2%}")
    titles = [axis.get_title(loc="left") for axis in found["coverage"].axes[1::2]]
    assert titles[0].startswith("40 % outside the trained range")
    readable(found["coverage in planes"])


def test_tracks_of_the_calibration_sample_itself_are_covered() -> None:
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    rows = bundle.reference()
    assert rows is not None
    names = [*bundle.card.condition_names, "weight"]
    same = Coverage(
        variables=bundle.card.conditions,
        calibration=rows[names],
        analysis=rows[names],
    )
    assert max(same.shares().values()) < 0.01  # the reference is not the train part
    _, size, tracks, share = same.plane("P", "ETA")
    assert share == pytest.approx(1 - tracks[size >= 5].sum())


def test_the_track_is_found_or_named() -> None:
    found = pidgan.plot(*given("kaon.onnx", "ntuple"), cuts=CUT, track="piminus")
    assert found.notes
    with pytest.raises(NtupleError, match="name one with --track"):
        pidgan.plot(str(GOLDEN / "kaon.onnx"), pd.DataFrame({"a": [1.0]}))
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    twice = {f"{t}_{n}": [3e4, 3.0][i == 1] for t in "ab" for i, n in enumerate("PE")}
    frame = pd.DataFrame({**{k: [v] for k, v in twice.items()}, "nTracks": [100]})
    frame = frame.rename(columns={"a_E": "a_ETA", "b_E": "b_ETA"})
    with pytest.raises(NtupleError, match="2 tracks with all conditions: a, b"):
        pidgan.plot(bundle, frame)


@pytest.fixture(scope="module")
def pions(tmp_path_factory: pytest.TempPathFactory) -> pidgan.Dataset:
    """The golden dataset as one of another species, with other targets."""
    kaons = pidgan.Dataset.open(GOLDEN / "kaon")
    sample = kaons.sample.model_copy(update={"species": "pi+"})
    return pidgan.Dataset(
        sample=sample,
        conditions=kaons.conditions,
        targets=np.where(kaons.targets > -900, kaons.targets - 20, kaons.targets),
        weights=np.ones(len(kaons)),
        alternatives=kaons.alternatives,
        split=kaons.split,
        info=kaons.info,
    )


def test_another_species_is_one_to_reject(pions: pidgan.Dataset) -> None:
    opened = pidgan.Dataset.open(GOLDEN / "kaon")
    kaons = dataclasses.replace(opened, weights=np.ones(len(opened)))
    found = pidgan.plot(kaons, pions, cuts=CUT)
    assert f"plane {CUT} of pi+" in found
    top = found[f"efficiency {CUT}"].axes[0]
    labels = [c.get_label() for c in top.containers]
    assert labels == ["efficiency $K^{+}$", "efficiency $\\pi^{+}$"]
    figure = found["ROC RichDLLk > x against pi+"]
    (points,) = figure.axes[0].containers
    misid, efficiency = points.lines[0].get_data()
    assert np.all(np.diff(misid) <= 0)
    assert np.all(np.asarray(efficiency) >= np.asarray(misid) - 0.05)
    assert figure.axes[0].get_xlabel() == "MisID of $\\pi^{+}$"
    readable(figure)


def test_scans_are_cuts_of_one_comparison() -> None:
    assert scanned(["RichDLLk > 0", "RichDLLk > 5", "RichDLLp - RichDLLk < -1.5"]) == [
        "RichDLLk > x",
        "RichDLLp - RichDLLk < x",
    ]
    assert scanned(["RichDLLk > 0 & RichDLLp > 1", "RichDLLk > x & RichDLLp > 1"]) == [
        "RichDLLk > x & RichDLLp > 1"
    ]


def test_pictures_are_written_in_every_format(
    shown: dict[str, Pictures], tmp_path: Path
) -> None:
    pictures = shown["dataset"].only("mass fit", "conditions")
    (png,) = pictures.save(tmp_path / "a.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    (pdf,) = pictures.save(tmp_path / "a.pdf")
    assert len(re.findall(rb"/Type /Page\b(?!s)", pdf.read_bytes())) == 2
    pictures.save(tmp_path / "b.pdf")
    assert (tmp_path / "b.pdf").read_bytes() == pdf.read_bytes()
    (svg,) = pictures.save(tmp_path / "a.svg")
    text = svg.read_text()
    assert text.count("<svg") == 3
    for mark in set(text.split("url(#")[1:]):
        assert f'id="{mark.partition(")")[0]}"' in text
    files = pictures.save(tmp_path / "folder")
    assert [file.name for file in files] == ["mass_fit.png", "conditions.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    with pytest.raises(NtupleError, match="exists"):
        pictures.save(tmp_path / "a.png")
    pictures.save(tmp_path / "folder", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(NtupleError, match=r"no pictures\.txt"):
        pictures.save(tmp_path / "other", overwrite=True)


@pytest.mark.parametrize("name", ["a.jpg", "a.eps", "a.root", "a.json"])
def test_other_suffixes_are_refused(
    shown: dict[str, Pictures], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=r"expected \.png, \.pdf, \.svg, or the name"):
        shown["map"].save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_names_of_files_differ() -> None:
    names = ["a > 0", "a < 0", "a  >  0", "é", "ü"]
    found = Pictures(dict.fromkeys(names, Figure)).file_names()
    assert len(set(found.values())) == len(names)
    assert found["a > 0"] == "a_gt_0.png"


def test_an_unknown_picture_names_the_nearest(shown: dict[str, Pictures]) -> None:
    with pytest.raises(KeyError, match="closest: 'mass fit'"):
        shown["dataset"]["masfit"]
    with pytest.raises(ValueError, match="closest: 'mass fit'"):
        shown["dataset"].only("masfit")
    assert "mass fit" in repr(shown["dataset"])
    assert shown["dataset"].only("mass fit")._repr_html_().count("<img") == 1


WRONG = {
    "text.txt": "found a text",
    "empty": "found an empty file",
    "void": "found an empty folder",
    "reports": r"report: open report\.html",
    "kmap.npz": r"part of an efficiency map; plot .*kmap\.json",
    "list.json": "found JSON",
    "manifest.json": "the manifest of an ntuple: plot the ntuple",
    "collection.toml": "a collection of bundles",
    "noise.bin": "a file of an unknown kind",
    "names.csv": "a table without numbers",
    "kan.onnx": "no such file; closest: 'kaon.onnx'",
    "": "is empty",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("kmap.npz", "kmap.json", "kaon.onnx"):
        shutil.copy(GOLDEN / name, folder / name)
    (folder / "text.txt").write_text("nothing\n")
    (folder / "empty").write_bytes(b"")
    (folder / "void").mkdir()
    (folder / "reports").mkdir()
    (folder / "reports" / "report.html").write_text("x")
    (folder / "list.json").write_text("[]")
    manifest = {"request": {}, "bundles": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "collection.toml").write_text("schema = 1\n[[bundles]]\n")
    (folder / "noise.bin").write_bytes(bytes([200, 1, 0, 255]) * 50)
    (folder / "names.csv").write_text("a,b\nx,y\n")
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_plotted_is_named(world: Path, name: str) -> None:
    path = str(world / name) if name else ""
    with pytest.raises(PidganError, match=WRONG[name]) as error:
        open_plotted(path)
    assert "\n" not in str(error.value)


def test_things_that_do_not_fit_together_are_refused() -> None:
    kaon, bundle, kmap = given("kaon", "kaon.onnx", "kmap.json")
    for args, message in (
        ((kmap, bundle), "is a generator, which cannot stand beside the map"),
        ((kaon, kmap), "is a map, which cannot stand beside the dataset"),
        ((kaon, kaon), r"both a dataset of K\+"),
        ((NTUPLE, bundle), "give the dataset or bundle first"),
        (("run2_dstar_k",), "the definition of a sample and has no rows"),
    ):
        with pytest.raises(NtupleError, match=message):
            pidgan.plot(*args)
    with pytest.raises(PidganError, match="closest: 'RichDLLk'"):
        pidgan.plot(kaon, cuts="RichDLk > 0")
    with pytest.raises(PidganError, match="closest: 'nTracks'"):
        pidgan.plot(kaon, variables=["nTrack"])
    with pytest.raises(ValueError, match="binning is given, which a plot of a map"):
        pidgan.plot(kmap, binning={"P": 3})
    with pytest.raises(TypeError, match="what is 5, expected a dataset"):
        pidgan.plot(5)


def test_the_same_thing_has_one_colour() -> None:
    colours = [canvas.REAL, canvas.GENERATED, canvas.CORRECTED, canvas.ANALYSIS]
    assert len(set(colours)) == len(colours)


def test_verbs_write_pictures(run: Run, tmp_path: Path) -> None:
    bundle, kmap = given("kaon.onnx", "kmap.json")
    target = tmp_path / "kaon.pdf"
    result = run("plot", kmap, "-o", str(target), "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["files"] == [str(target)]
    assert content["pictures"] == list(pidgan.plot(kmap))
    result = run("plot", kmap, "-o", str(target))
    assert result.code == 1
    assert "exists" in result.err
    result = run("plot", kmap, "-o", str(tmp_path / "a.jpg"))
    assert result.code == 2
    assert ".png, .pdf, .svg" in result.err
    words = ("--cut", CUT, "--binning", "P=3", "--plot", str(tmp_path / "t.svg"))
    result = run("table", bundle, *words)
    assert result.code == 0, result.err
    assert (tmp_path / "t.svg").read_text().count("<svg") == 2
    result = run("table", bundle, *words[:-1], str(tmp_path / "t.gif"))
    assert result.code == 2


def test_efficiencies_of_an_analysis_are_drawn(run: Run, tmp_path: Path) -> None:
    bundle, kmap = given("kaon.onnx", "kmap.json")
    out = tmp_path / "out.root"
    words = ("apply", "--track", f"Kplus={bundle}", NTUPLE, "-o", str(out))
    assert run(*words, "--mode", "replace").code == 0
    result = run(
        *("efficiency", str(out), "--map", f"Kplus={kmap}", "--cut", CUT, "--json"),
        *("--binning", "nTracks=0,100,200,1000", "--plot", str(tmp_path / "e.png")),
    )
    assert result.code == 0, result.err
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    found = pidgan.pid_efficiency(
        {"Kplus": kmap}, out, cuts=CUT, binning={"nTracks": [0, 100, 200, 1000]}
    )
    _, top = pidgan.plot(found)[f"efficiency {CUT}"].axes
    _, y, ends = line_of(top, "corrected")
    np.testing.assert_allclose(y, [one.value for one in found])
    totals = [one.total for one in found]
    np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, totals)


def test_prepare_draws_the_mass_fit(run: Run, tmp_path: Path) -> None:
    file, folder = tmp_path / "k.root", tmp_path / "kaon"
    words = ("simulate", "rich", "--decay", "dstar_k", "-n", "6000", "-o", str(file))
    assert run(*words).code == 0
    result = run("prepare", "sim_dstar_k", str(file), "-o", str(folder))
    assert result.code == 0, result.err
    assert "purity" in result.out
    assert "chi2/ndof" in result.out
    assert (folder / "mass_fit.png").read_bytes().startswith(b"\x89PNG")
    dataset = pidgan.Dataset.open(folder)
    # A dataset that is saved without the picture has none of an older one.
    dataset.save(folder, overwrite=True)
    assert not (folder / "mass_fit.png").exists()
    pidgan.Dataset.open(folder)


def test_the_extra_is_named_where_matplotlib_is_missing() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['mplhep'] = None;"
        "import pidgan.cli; sys.argv = ['pidgan', 'plot', 'x', '-o', 'x.png'];"
        "pidgan.cli.main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1
    assert 'pip install ".[train]"' in found.stderr
    assert len(found.stderr.splitlines()) == 1


PLOTTED = [
    pidgan.Dataset,
    pidgan.Model,
    pidgan.Bundle,
    pidgan.EfficiencyMap,
    pidgan.EfficiencyTable,
    pidgan.RealVsGenerated,
    pidgan.PidEfficiencies,
    pidgan.WorkingPoint,
    pidgan.SweightResult,
]


def test_objects_plot_themselves_as_the_function_does() -> None:
    """`Dataset.plot` is `pidgan.plot(dataset)`, with the same options."""
    own = dict(inspect.signature(higher.plot).parameters)
    whole = dict(inspect.signature(pidgan.plot).parameters)
    assert list(own)[1:] == list(whole)[1:]
    assert all(own[n].default == whole[n].default for n in list(own)[2:])
    assert all(kind.__dict__["plot"] is higher.plot for kind in PLOTTED)
    bundle = pidgan.open_bundle(GOLDEN / "kaon.onnx")
    table = pidgan.efficiency_table(bundle.reference(), CUT, binning={"P": (0, 3e5)})
    objects: list[Any] = [pidgan.Dataset.open(GOLDEN / "kaon"), bundle, table]
    for one in objects:
        given = {} if one is table else {"cuts": CUT}
        assert list(one.plot(**given)) == list(pidgan.plot(one, **given))
    covered = bundle.plot(NTUPLE, track="Kplus", cuts=CUT)
    assert next(iter(covered)) == "coverage"
    found = pidgan.EfficiencyMap.open(GOLDEN / "kmap.json")
    assert isinstance(next(iter(found.plot().values())), Figure)
    with pytest.raises(ValueError, match="a plot of a map ignores"):
        found.plot(variables=["P"])


def test_a_plot_without_the_libraries_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import pidgan\n"
        f"found = pidgan.EfficiencyMap.open({str(GOLDEN / 'kmap.json')!r})\n"
        "found.plot()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(
        r"ModuleNotFoundError: pictures need matplotlib[\w.]*; install the training "
        r'dependencies: pip install "\.\[train\]" in the source tree',
        done.stderr,
    ), done.stderr
