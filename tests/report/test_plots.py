"""Figures: every function draws, whatever the arrays hold, and leaves no state."""

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from pidgan.report.pads import MOMENTS, image_moments, profile
from pidgan.report.plots import png, small_png
from pidgan.report.plots.efficiencies import (
    plot_breakdown,
    plot_corrected,
    plot_efficiency,
    plot_map,
    plot_roc,
)
from pidgan.report.plots.pads import plot_pads, plot_profiles
from pidgan.report.plots.samples import plot_history, plot_mass_fit
from pidgan.report.plots.targets import (
    plot_correlation,
    plot_target,
    plot_two_targets,
)
from pidgan.sample.grids import Grid

EDGES = np.array([3e3, 10e3, 30e3, 100e3])


def efficiency_figure(real: np.ndarray) -> Figure:
    interval = np.stack([real - 0.02, real + 0.02])
    return plot_efficiency(
        EDGES,
        (real, interval),
        (real, interval),
        (np.zeros(3) + 0 * real, np.full(3, 0.01)),
        condition="P",
        unit="MeV",
        cut="DLLk > 0",
        label="Efficiency of K+",
    )


def target_figure(**changes: object) -> Figure:
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=300), rng.normal(size=300)
    real[:10] = -999.0
    arguments: dict = {
        "name": "DLLk",
        "weights": rng.normal(0.5, 1.0, 300),
        "sentinels": (-999.0,),
        **changes,
    }
    return plot_target(real, generated, **arguments)


CORRELATION = {"condition": "P", "unit": "MeV", "title": "DLLk, DLLp"}


def flag_figure() -> Figure:
    flags = (np.random.default_rng(1).random((2, 300)) < 0.7).astype(float)
    flags[0, :5] = -999.0
    return plot_target(*flags, name="isMuon", sentinels=(-999.0,), tail=True)


def two_targets_figure() -> Figure:
    y, g = np.random.default_rng(1).normal(size=(2, 2, 200))
    w, masks = np.ones(200), [np.arange(200) % 3 == i for i in range(4)]
    columns = [(f"bin {i}", "", mask) for i, mask in enumerate(masks)]
    names = ("DLLk", "DLLp")
    return plot_two_targets(tuple(y), tuple(g), names=names, weights=w, columns=columns)


def corrected_figure(
    real: np.ndarray, positions: np.ndarray = EDGES, **changes: object
) -> Figure:
    arguments: dict = {
        "generated": real - 0.05,
        "corrected": (real + 0.01, np.full(len(real), 0.02)),
        "axis_name": "P",
        "unit": "MeV",
        "cut": "DLLk > 0",
        **changes,
    }
    interval = np.stack([real - 0.01, real + 0.01])
    return plot_corrected(positions, (real, interval), **arguments)


def pads_figure(**changes: object) -> Figure:
    rng = np.random.default_rng(1)
    images, x = rng.poisson(5.0, (40, 3, 4)), rng.uniform(0.0, 2.0, 40)
    arguments: dict = {"edges": [0, 1, 2], "generated": images[:20], **changes}
    return plot_pads(images, x, generated_x=x[:20], **arguments)


def profiles_figure(rows: int) -> Figure:
    rng = np.random.default_rng(1)
    x, edges = rng.uniform(0.0, 2.0, rows), np.linspace(0.0, 2.0, 3)
    moments = image_moments(rng.poisson(5.0, (rows, 3, 4)))
    found = {name: profile(x, moments[:, k], edges) for k, name in enumerate(MOMENTS)}
    return plot_profiles(found, found)


def roc_figure(misid: np.ndarray) -> Figure:
    kinds = ("real", "generated", "corrected")
    efficiency = {kind: np.array([0.99, 0.9, 0.5]) for kind in kinds}
    errors = (np.full(3, 0.01), np.full(3, 0.002))
    return plot_roc(
        efficiency,
        dict.fromkeys(kinds, misid),
        errors={"real": errors, "corrected": errors},
        species=("K+", "pi+"),
        point=(0.1, 0.9, 0.01, 0.02),
    )


FIGURES = {
    "corrected": lambda: corrected_figure(np.array([0.9, 0.95, 0.5])),
    "corrected_nan": lambda: corrected_figure(np.array([np.nan, 0.95, np.nan])),
    "corrected_all_nan": lambda: corrected_figure(np.full(3, np.nan)),
    "corrected_zero": lambda: corrected_figure(np.zeros(3), log=True),
    "corrected_thresholds": lambda: corrected_figure(
        np.array([0.9, 0.1, 0.0]), np.array([1.0, 2.0, 3.0]), log=True
    ),
    "roc": lambda: roc_figure(np.array([0.5, 0.1, 0.01])),
    "roc_without_misid": lambda: roc_figure(np.array([1e-3, 0.0, -1e-4])),
    "breakdown": lambda: plot_breakdown(
        ["DLLk > 0", "DLLk > 5"], {"a": [0.01, 0.02], "b": [0.0, 0.0]}, [0.01, 0.02]
    ),
    "pads": pads_figure,
    "pads_real_alone": lambda: pads_figure(generated=None),
    "pads_empty_bin": lambda: pads_figure(edges=[0, 2, 9, 10]),
    "pads_without_amplitude": lambda: pads_figure(edges=[5, 6]),
    "profiles": lambda: profiles_figure(60),
    "profiles_of_few_rows": lambda: profiles_figure(4),
    "target": target_figure,
    "target_tail": lambda: target_figure(tail=True),
    "flag": lambda: flag_figure(),
    "correlation": lambda: plot_correlation(
        EDGES, [0.1, np.nan, 0.3], [0.2, 0.1, 0.3], [0.1] * 3, **CORRELATION
    ),
    "two_targets": lambda: two_targets_figure(),
    "target_panels": lambda: target_figure(
        panels=[(str(i), np.arange(300) % 4 == i) for i in range(4)]
    ),
    "target_empty_panel": lambda: target_figure(
        panels=[("none", np.zeros(300, dtype=bool))]
    ),
    "efficiency": lambda: efficiency_figure(np.array([0.9, 0.95, np.nan])),
    "efficiency_nan": lambda: efficiency_figure(np.full(3, np.nan)),
    "map": lambda: plot_map(
        EDGES,
        [1.5, 3.0, 5.0],
        [[0.01, np.nan], [0.0, -0.01], [0.0, 0.02]],
        np.full((3, 2), 0.01),
        names=("P", "ETA"),
        units=("MeV", "1"),
    ),
    "mass_fit": lambda: plot_mass_fit(
        np.linspace(0, 3, 4), [5, 9, 0], [4.0, 8.0, 0.0], [1.0, 1.0, 0.0]
    ),
    "history": lambda: plot_history(
        {"step": [1, 2], "loss": [1.0, np.nan], "validation_loss": [1.0, 0.6]}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_and_leaves_no_state(name: str) -> None:
    before = dict(mpl.rcParams)
    content = png(FIGURES[name]())
    assert content.startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


def test_momenta_are_drawn_in_gev() -> None:
    bottom = efficiency_figure(np.array([0.9, 0.9, 0.9])).axes[0]
    assert bottom.get_xlabel() == "P [GeV]"
    assert bottom.get_xlim() == pytest.approx((3, 100))


def test_corrected_efficiency_is_drawn_with_its_ratio_to_real() -> None:
    real = np.array([0.8, np.nan, 0.5])
    bottom, top = corrected_figure(real).axes
    assert bottom.get_xlabel() == "P [GeV]"
    assert bottom.get_ylabel() == "ratio to real"
    assert bottom.get_xscale() == "log"
    steps = {p.get_linestyle(): p.get_data().values for p in bottom.patches}
    np.testing.assert_allclose(steps["-"], (real + 0.01) / real)
    np.testing.assert_allclose(steps["--"], (real - 0.05) / real)
    texts = [text.get_text() for text in top.get_legend().get_texts()]
    assert texts == ["real", "generated", "corrected"]


def test_axis_of_even_bins_stays_linear() -> None:
    even = np.array([100.0, 200.0, 300.0, 400.0])
    assert corrected_figure(np.full(3, 0.5), even).axes[0].get_xscale() == "linear"


def test_bin_width_and_sentinels_are_told() -> None:
    top = target_figure(weights=None).axes[1]
    assert top.get_ylabel() == "Tracks / 0.5"
    texts = [text.get_text() for text in top.get_legend().get_texts()]
    assert "real (3.33% sentinel)" in texts


def test_drawn_histogram_holds_the_weights() -> None:
    rng = np.random.default_rng(1)
    real, w = rng.uniform(size=300), rng.normal(0.5, 1.0, 300)
    top = plot_target(real, real, name="ProbNNk", weights=w).axes[1]
    (container,) = top.containers
    drawn = container.lines[0].get_ydata()
    assert np.sum(drawn) == pytest.approx(w.sum())


@pytest.mark.parametrize(("step", "offset"), [(1, 0), (1, 0.5), (0.04, 0), (3, 1)])
def test_bins_hold_as_many_values_of_a_grid(step: float, offset: float) -> None:
    k = np.random.default_rng(3).integers(0, 137, 60_000)
    values = offset + step * k
    grid = Grid(step=step, offset=offset)
    top = plot_target(values, values, name="nClusters", grid=grid).axes[1]
    (container,) = top.containers
    x, drawn = (np.asarray(v, float) for v in container.lines[0].get_data())
    cells = np.diff(x)[0] / step
    assert cells == pytest.approx(round(cells))
    # No bin has a value more than others: flat but at both ends.
    pull = (drawn - cells * 60_000 / 137)[1:-1] / np.sqrt(cells * 60_000 / 137)
    assert np.abs(pull).max() < 5
    edges = x - np.diff(x)[0] / 2
    inside = (edges - offset) / step + 0.5
    np.testing.assert_allclose(inside, np.rint(inside), atol=1e-6)


def test_a_flag_has_two_bars_and_no_ticks_between() -> None:
    bottom, top = flag_figure().axes
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["0", "1"]
    assert not len(bottom.xaxis.get_minorticklocs())
    (points,) = (one for one in top.containers if hasattr(one, "lines"))
    assert len(points.lines[0].get_ydata()) == 2


def test_bins_follow_from_the_rows_and_axes_from_the_bulk() -> None:
    rng = np.random.default_rng(1)
    y = np.concatenate([rng.normal(20, 20, 33_000), [-1000.0, 500.0]])
    bottom, top, *tail = plot_target(y, y, name="DLLk", tail=True).axes
    assert top.get_ylabel() == "Tracks / 1"
    low, high = bottom.get_xlim()
    assert -35 < low < -30
    assert 70 < high < 75
    assert tail[0].get_xlim()[0] <= -1000
    assert tail[1].get_yscale() == "log"


def test_ticks_of_the_upper_panel_have_no_labels() -> None:
    figure = efficiency_figure(np.array([0.9, 0.95, 0.9]))
    top = figure.axes[1]
    figure.canvas.draw()
    for which in ("major", "minor"):
        for tick in getattr(top.xaxis, f"get_{which}_ticks")():
            assert not tick.label1.get_visible()


def test_an_axis_of_less_than_a_decade_stays_linear() -> None:
    eta = np.array([1.5, 3.0, 3.1, 5.0])
    assert corrected_figure(np.full(3, 0.5), eta).axes[0].get_xscale() == "linear"


def test_bars_of_a_breakdown_stay_in_the_frame() -> None:
    figure = plot_breakdown(["cut"], {"a": [0.01], "real rows": [0.05]}, [0.02])
    assert figure.axes[0].get_xlim()[1] > 5.0


def test_a_small_png_has_the_colours_of_the_figure() -> None:
    from PIL import Image

    figure = flag_figure()
    small, whole = small_png(figure), png(figure, dpi=120)
    assert len(small) < 0.6 * len(whole)
    a, b = (
        np.asarray(Image.open(io.BytesIO(one)).convert("RGB"), float)
        for one in (small, whole)
    )
    assert a.shape == b.shape
    assert np.abs(a - b).mean() < 2


def test_pyplot_is_not_imported() -> None:
    code = (
        "import sys, pidgan.report.plots.samples as p;"
        "from pidgan.report.plots import png;"
        "png(p.plot_history({'step': [1, 2], 'a': [1.0, 2.0]}));"
        "print(len(sys.modules.get('matplotlib.pyplot').get_fignums())"
        " if 'matplotlib.pyplot' in sys.modules else 0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "0"
