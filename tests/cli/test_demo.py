"""The demo, with little data and hardly any training: every file, and honest sums."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import uproot

pytest.importorskip("tensorflow")

from pidgan.cli import demo
from pidgan.errors import PidganError


@pytest.mark.filterwarnings("ignore::pidgan.errors.PidganWarning")
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CALIBRATION_TRACKS", 15_000)
    monkeypatch.setattr(demo, "ANALYSIS_ENTRIES", 2_000)
    directory = tmp_path / "demo"
    lines: list[str] = []
    comparisons = demo.run_demo(directory, seed=2, budget="12s", echo=lines.append)
    assert len(comparisons) == 6
    assert any("within 1 total sigma" in line for line in lines)
    assert comparisons["total"].between(0, 1, inclusive="neither").all()
    assert comparisons["truth"].between(0, 1).all()
    np.testing.assert_allclose(
        comparisons["total"], np.hypot(comparisons["stat"], comparisons["syst"])
    )
    assert json.loads((directory / "demo.json").read_text())[0]["cut"] == demo.CUTS[0]
    for name in ("report.html", "kaon-report/report.html", "pion-report/report.html"):
        assert (directory / name).stat().st_size > 10_000
    for page in (directory / "report.html", directory / "index.html"):
        for address in re.findall(r'href="([^"#]+)"', page.read_text()):
            assert (directory / address).is_file(), address
    assert 'href="kaon-report/report.html"' in (directory / "index.html").read_text()

    with (
        uproot.open(f"{directory}/analysis.root:DecayTree") as before,
        uproot.open(f"{directory}/analysis-pid.root:DecayTree") as after,
    ):
        for name, branch in before.items():
            kept = after[name]
            if "[]" in branch.typename or name.startswith("n"):
                continue
            assert kept.interpretation == branch.interpretation, name
            generated = "RichDLL" in name and "TRUE" not in name
            if not generated:
                np.testing.assert_array_equal(kept.array(), branch.array())

    with pytest.raises(PidganError, match="exists; choose another name"):
        demo.run_demo(directory)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(PidganError, match=r"holds files but no demo\.json"):
        demo.run_demo(tmp_path / "mine", overwrite=True)
