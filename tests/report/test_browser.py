"""Pages in a real browser: nothing leaves the page, no image is broken, all prints."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_map_page import KAON, given
from test_validation import toy_dataset
from toy_generator import ToyGenerator, make_card
from toy_showers import NAMES, STACK, toy_showers

pytest.importorskip("mplhep")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

from pidgan.report.index_page import write_index
from pidgan.report.map_page import write_map_report
from pidgan.report.page import Picture, Section, Table, render_page
from pidgan.report.plots.samples import plot_history
from pidgan.report.shower_validation import compare_showers
from pidgan.report.validation import validate

NAMES_OF_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES_OF_BROWSERS)), None)
HIGHEST = 6000  # pixels, before anything is unfolded
SCRIPT = """<script>addEventListener("load", () => {
  const height = document.documentElement.scrollHeight;
  const folds = [...document.querySelectorAll("details")];
  const closed = folds.filter((fold) => !fold.open).length;
  folds.forEach((fold) => { fold.open = true; });
  const images = [...document.images];
  const found = {
    width: document.documentElement.scrollWidth, inner: innerWidth, height, closed,
    images: images.length, broken: images.filter((one) => !one.naturalWidth).length,
    outside: [...document.querySelectorAll("main *")].filter(
      (one) => one.getBoundingClientRect().right > innerWidth + 1).length,
    unfolded: document.documentElement.scrollHeight,
  };
  document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
});</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no chromium")


def run_browser(profile: Path, *options: str) -> str:
    assert BROWSER is not None
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command = [BROWSER, *common, f"--user-data-dir={profile}", *options]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300
    ).stdout


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    generator = ToyGenerator(card=make_card())
    dataset = toy_dataset(3000)
    given_rows: Any = {"cuts": "DLLk > 3", "c2st_rows": 200}
    found = validate(generator, dataset, misid=[(generator, dataset)], **given_rows)
    track = found.save(folder / "track")
    efficiency_map = write_map_report(given(KAON, cuts="DLLk > 1"), folder / "map")
    x, cells = toy_showers(400, seed=1, spots=60)
    compared = compare_showers(cells, cells, x, STACK, names=NAMES, classifiers=False)
    shower = compared.save(folder / "shower")
    index = write_index(folder)
    return {"track": track, "map": efficiency_map, "shower": shower, "index": index}


@pytest.fixture(scope="module")
def measure(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Path, int], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("browser")

    def measured(page: Path, width: int) -> dict[str, Any]:
        copy = folder / "page.html"
        copy.write_text(page.read_text().replace("</body>", SCRIPT))
        size = f"--window-size={width},900"
        text = run_browser(folder / "profile", size, "--dump-dom", copy.as_uri())
        match = re.search(r"<pre>(\{.*?\})</pre>", text)
        assert match, text[-2000:]
        return dict(json.loads(match[1]))

    return measured


@pytest.mark.parametrize("name", ["track", "map", "shower", "index"])
@pytest.mark.parametrize("width", [1300, 800])
def test_nothing_leaves_the_page(
    pages: dict[str, Path],
    measure: Callable[[Path, int], dict[str, Any]],
    name: str,
    width: int,
) -> None:
    found = measure(pages[name], width)
    assert found["inner"] == width
    assert found["width"] <= width, found
    assert found["broken"] == 0
    assert found["height"] <= HIGHEST
    if width == 1300:
        assert found["outside"] == 0, found
    assert (found["images"] > 0) == (name != "index")


def long_page() -> str:
    """A page of a chain of many targets, with long names and wide tables."""
    history = {"step": [1, 2], "loss": [1.0, 0.5]}
    name = "probe_MC15TuneV1_ProbNNghost_of_the_second_daughter"
    row = {f"a column {i}": 0.123 for i in range(9)}
    parts = [
        Section(
            title=f"{name}_{i}",
            text="word " * 60,
            tables=[Table([{"figure": f"{name} > {k}", **row} for k in range(9)])],
            pictures=[Picture(plot_history(history), "Losses.")],
        )
        for i in range(17)
    ]
    sections = [Section(title="Summary", text="word " * 90, tables=parts[0].tables)]
    sections += [Section(title="Cuts", parts=parts[:9])]
    sections += [Section(title="Targets", parts=parts[9:])]
    return render_page("A chain", sections)


def test_a_long_page_folds_and_all_of_it_prints(
    tmp_path: Path, measure: Callable[[Path, int], dict[str, Any]]
) -> None:
    page = tmp_path / "page.html"
    page.write_text(long_page())
    for width in (1300, 800):
        found = measure(page, width)
        assert found["height"] <= HIGHEST
        assert found["closed"] > 10
        assert found["unfolded"] > 1.5 * HIGHEST
        assert found["width"] <= width
    without = tmp_path / "without_script.html"
    without.write_text(re.sub(r"<script>.*?</script>", "", long_page(), flags=re.S))
    for shown in (page, without):
        paper = shown.with_suffix(".pdf")
        run_browser(tmp_path / "profile", f"--print-to-pdf={paper}", shown.as_uri())
        counts = [int(n) for n in re.findall(rb"/Count (\d+)", paper.read_bytes())]
        # 17 sections of half a page to a page each, with two figures.
        assert max(counts) >= 8


def test_a_page_needs_no_network(pages: dict[str, Path]) -> None:
    for page in pages.values():
        text = page.read_text()
        assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", text)
    assert np.all([page.stat().st_size < 3e6 for page in pages.values()])
