"""The page about chains: its commands run, on few rows and with a short training."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import uproot
from command_line import Run

pytest.importorskip("tensorflow")

import pidgan

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "training" / "chain.md"
SMALL = {
    "-n 600000": "-n 6000",
    "-n 50000": "-n 300",
    "--budget 30m": "--steps 27 --family energy --set xla=false",
}
TARGETS = {"RichDLLk", "Calo_EoverP", "isMuon", "MuonDLL", "PIDmu", "ProbNNmu"}

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="the documentation is not part of a wheel"
)


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return [line for block in blocks[:2] for line in block.splitlines()]


def test_the_commands_of_the_page_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "\n".join(commands())
    for long, short in SMALL.items():
        assert long in small
        small = small.replace(long, short)
    for line in small.splitlines():
        _, *words = shlex.split(line)
        result = run(*words)
        assert result.code == 0, (line, result.err)
    card = pidgan.open_bundle("muon.onnx").card
    names = [link.name for link in card.links]
    assert names == ["rich", "calorimeter", "muon", "dll", "probnn"]
    assert "muon_batch" in Path("muon.c").read_text()
    with uproot.open("jpsi-pid.root") as file:
        tree = file["DecayTree"]
        for track in ("muplus", "muminus"):
            columns = {t: tree[f"{track}_{t}"].array(library="np") for t in TARGETS}
            is_muon = columns["isMuon"]
            assert set(np.unique(is_muon)) <= {0, 1}
            no_muon = columns["MuonDLL"] == -1000
            np.testing.assert_array_equal(no_muon, is_muon == 0)
    given = ("--map", "muplus=muon-map.json", "--map", "muminus=muon-map.json")
    cut = ("--cut", "isMuon & DLLmu > 0", "--species-from", "TRUEID", "--json")
    found = json.loads(run("efficiency", "jpsi-pid.root", *given, *cut).out)
    (result,) = found["results"]
    assert 0 < result["value"] < 1
    assert result["total"] > result["stat"] > 0
