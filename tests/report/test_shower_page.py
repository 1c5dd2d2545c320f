"""The comparison of showers and its report, on showers with known differences."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_showers import NAMES, STACK, toy_showers

from pidgan.errors import DatasetError, PidganError
from pidgan.report.report import Report
from pidgan.report.shower_validation import compare_showers, generate_showers

N = 500


@pytest.fixture(scope="module")
def showers() -> tuple[np.ndarray, np.ndarray]:
    return toy_showers(N, seed=1, spots=60)


@pytest.fixture(scope="module")
def report(showers: tuple[np.ndarray, np.ndarray]) -> Report:
    conditions, cells = showers

    def generate(x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        assert noise.shape == (len(x), 3)
        # A shower of one's own conditions, 2 % too high, with half as much again of
        # fluctuation, and without its last layer.
        generated = cells * (1.02 + 0.02 * noise[:, :1])
        generated[:, -36:] = 0
        return generated

    generated = generate_showers(generate, conditions, n_noise=3)
    return compare_showers(
        cells, generated, conditions, STACK, names=NAMES, classifiers=False
    )


def test_known_differences_are_found(
    report: Report, showers: tuple[np.ndarray, np.ndarray]
) -> None:
    figures = json.loads(report.to_json())
    response = figures["response"]
    assert set(response) == {"all", "species 11", "species 22"}
    bias = np.average(response["all"]["linearity"], weights=response["all"]["showers"])
    conditions, cells = showers
    responses = cells[:, :-36].sum(axis=1), cells.sum(axis=1)
    kept, whole = (np.mean(e / conditions[:, 0]) for e in responses)
    assert bias == pytest.approx(1.02 * kept / whole - 1, abs=0.005)
    assert report.data.curves["profile/cells"][1].mean[-1] == 0
    powers = figures["separation"]
    assert powers["fraction[7]"]["value"] > 2 * powers["fraction[7]"]["floor"]
    assert powers["fraction[7]"]["value"] > 0.2
    # Centres of the first layer did not change.
    same = powers["x[0]"]
    assert abs(same["value"] - same["floor"]) < 0.05
    whole = [found["value"] for name, found in powers.items() if "[" not in name]
    assert figures["separation_mean"]["value"] == pytest.approx(np.mean(whole))
    assert figures["showers"] == N


def test_equal_showers_have_the_floor(showers: tuple[np.ndarray, np.ndarray]) -> None:
    conditions, cells = showers
    found = compare_showers(
        cells, cells, conditions, STACK, names=NAMES, classifiers=False
    ).numbers
    powers = found["separation"].values()
    near = [p["value"] - p["floor"] < 2 * p["floor_error"] for p in powers]
    assert np.mean(near) > 0.95
    for key in ("separation_mean", "fpd", "kpd"):
        assert found[key]["value"] == pytest.approx(
            found[key]["floor"], rel=0.5, abs=1e-3
        )
    assert found["response"]["all"]["worst_linearity"] == 0
    assert found["response"]["all"]["worst_resolution"] == 0


def test_classifiers_see_the_difference(
    showers: tuple[np.ndarray, np.ndarray],
) -> None:
    from pidgan.report.shower_metrics import high_level
    from pidgan.report.shower_validation import _classifiers

    conditions, cells = showers
    energy = conditions[:, 0]
    changed = cells * 1.5
    observed = [
        {k: v for k, v in high_level(e, STACK, energy).items() if "[" not in k}
        for e in (cells, changed)
    ]
    half = np.arange(N) % 2 == 0
    found = _classifiers(
        conditions, (cells[:, ::72], changed[:, ::72]), observed, energy, half, 1
    )
    assert found["high"]["value"] > 0.8
    assert abs(found["high"]["floor"] - 0.5) < 5 * found["high"]["floor_error"]
    assert found["low"]["showers"] == N


def test_the_report_is_written(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed: list[dict[str, Any]] = [{"generator": "mine", "ms at batch 1": 0.25}]
    figures = report.numbers | {"speed": speed}
    path = dataclasses.replace(report, numbers=figures).save(tmp_path / "out")
    page = path.read_text()
    for text in ("mean separation power", "Linearity", "Average shower, cells", "mine"):
        assert text in page
    assert page.count("data:image/png") >= 12
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["speed"] == speed
    with pytest.raises(PidganError, match="exists; choose another name"):
        report.save(tmp_path / "out")


@pytest.mark.parametrize(
    ("known", "axis", "unit"),
    [(("z", "thickness"), "Depth", "mm"), (("z",), "Layer", "mm"), ((), "Layer", "")],
)
def test_depth_has_the_unit_that_is_known(
    showers: tuple[np.ndarray, np.ndarray],
    known: tuple[str, ...],
    axis: str,
    unit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib")
    from pidgan.report import shower_page

    conditions, cells = showers
    unknown = dict.fromkeys({"z", "thickness"} - {*known})
    (view,) = STACK.views
    layers = tuple(dataclasses.replace(la, **unknown) for la in view.layers)
    geometry = dataclasses.replace(
        STACK, views=(dataclasses.replace(view, layers=layers),)
    )
    report = compare_showers(
        cells, cells, conditions, geometry, names=NAMES, classifiers=False
    )
    axes: dict[str, str] = {}
    plot_curves = shower_page.showers.plot_curves

    def record(*curves: Any, **labels: Any) -> Any:
        axes[labels["what"]] = labels["name"]
        return plot_curves(*curves, **labels)

    monkeypatch.setattr(shower_page.showers, "plot_curves", record)
    for picture in shower_page._profiles(report.data).pictures:
        if picture.name.startswith("profile"):
            assert picture.figure.axes
    assert axes["Energy of a layer [MeV]"] == axis
    assert shower_page._label("depth", geometry)[1] == (unit or "layers")


def test_showers_of_any_geometry_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    from pidgan.calorimeter.geometry_file import load_geometry
    from pidgan.report.plots import png
    from pidgan.report.plots.showers import plot_shower

    geometry = load_geometry(
        {
            "layers": [
                {"kind": "cylindrical", "r_edges": [0, 1, 3], "n_alpha": 5},
                {"kind": "cylindrical", "r_edges": [0, 2]},
                {"kind": "rectangular", "nx": 2, "ny": 3, "cell": [1, 2]},
                {"kind": "list", "centres": [[0, 0], [3, 1]], "cell": [1, 1]},
            ]
        }
    )
    outlines = [layer.outlines() for layer in geometry.layers]
    for layer, corners in zip(geometry.layers, outlines, strict=True):
        x, y = corners[..., 0], corners[..., 1]
        area = np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(axis=1)) / 2
        sizes = np.prod(layer.plane()[1], axis=1)
        assert np.allclose(area, sizes, rtol=0.01), layer.kind
    cells = np.arange(19.0)
    parts = np.split(
        cells, np.cumsum([layer.n_cells for layer in geometry.layers])[:-1]
    )
    image = png(plot_shower(outlines, [("real", parts), ("generated", parts)]))
    assert image.startswith(b"\x89PNG")


def test_bad_input_is_refused(showers: tuple[np.ndarray, np.ndarray]) -> None:
    x, cells = showers
    with pytest.raises(DatasetError, match="20 showers, expected at least 400"):
        compare_showers(cells[:20], cells[:20], x[:20], STACK, names=NAMES)
    with pytest.raises(ValueError, match="500 real and 499 generated showers for 500"):
        compare_showers(cells, cells[1:], x, STACK, names=NAMES)
    broken = cells.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DatasetError, match="1 generated showers have cells that"):
        compare_showers(cells, broken, x, STACK, names=NAMES)
