"""ROOT itself reads what is written, and the friend tree as friend.

`pip install root` gives ROOT; without it, these checks are skipped.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
import pytest
import uproot
from toy_generator import ToyGenerator, make_card

from pidgan.application.apply import apply

pytestmark = pytest.mark.skipif(find_spec("ROOT") is None, reason="needs ROOT")

ENTRIES = 1000

# In a process of its own: ROOT's libraries and handlers are not made for pytest's.
READER = """
import json, sys
import numpy as np
import ROOT
path, main, *names = sys.argv[1:]
file = ROOT.TFile(path)
assert not file.IsZombie() and not file.TestBit(ROOT.TFile.kRecovered)
frame = ROOT.RDataFrame("T", path)
if main:
    both = ROOT.TFile(main)
    tree = both.Get("T")
    assert tree.AddFriend("pid = T", path)
    frame = ROOT.RDataFrame(tree)
# ROOT 6.40 has no numpy view of vectors of 8-bit integers.
for i, name in enumerate(names):
    kind = frame.GetColumnType(name)
    whole = "ROOT::RVecI({0}.begin(), {0}.end())" if "Vec" in kind else "int({0})"
    is_short = "har" in kind or "int8" in kind
    frame = frame.Define(f"c{i}", whole.format(name) if is_short else name)
values = frame.AsNumpy([f"c{i}" for i in range(len(names))])
columns = zip(names, values.values())
histogram = file.Get("counts")
print(json.dumps({
    "columns": {n: [np.asarray(v).tolist() for v in c] for n, c in columns},
    "sum": histogram.GetSumOfWeights() if histogram else None,
}))
"""


@pytest.fixture(params=["ttree", "rntuple"])
def ntuple(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A flat track K, a collection T, and a histogram."""
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, ENTRIES).astype(np.int32)
    n = int(counts.sum())
    data: dict[str, Any] = {
        "nTrack": counts,
        "K_P": rng.uniform(5e3, 9e4, ENTRIES),
        "K_ETA": rng.uniform(2, 4.5, ENTRIES),
        "T_P": ak.unflatten(rng.uniform(5e3, 9e4, n), counts),
        "T_ETA": ak.unflatten(rng.uniform(2, 4.5, n), counts),
        "T_DLLk": ak.unflatten(np.zeros(n), counts),
        "K_DLLk": np.zeros(ENTRIES),
    }
    path = tmp_path / f"{request.param}.root"
    with uproot.recreate(path) as file:
        if request.param == "rntuple":
            file.mkrntuple("T", data)
            return path
        types = {
            name: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content
            for name, v in data.items()
        }
        file.mktree("T", types, counter_name=lambda name: "nTrack").extend(data)
        file["counts"] = hist.Hist.new.Reg(5, 0, 1).Double().fill(rng.random(77))
    return path


def read_with_root(path: Path, names: list[str], main: Path | None) -> dict[str, Any]:
    words = [sys.executable, "-c", READER, path, main or "", *names]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mode", ["replace", "append", "friend"])
def test_root_reads_every_mode(ntuple: Path, tmp_path: Path, mode: Any) -> None:
    out = tmp_path / "out.root"
    toy = ToyGenerator(card=make_card())
    suffix = "_gen" if mode == "append" else ""
    apply({"K": toy, "T": toy}, ntuple, out, mode=mode, suffix=suffix, chunk=300)
    fresh = [f"{t}_{n}{suffix}" for t in "KT" for n in ("DLLk", "pidgan_status")]
    kept = [] if mode == "friend" else ["K_P", "T_P", "nTrack"]
    found = read_with_root(out, [*fresh, *kept], None)
    with uproot.open({out: "T"}) as tree:
        expected = {name: tree[name].array().tolist() for name in [*fresh, *kept]}
    assert found["columns"] == expected
    assert len(expected["T_DLLk" + suffix]) == ENTRIES
    has_histogram = ntuple.stem == "ttree" and mode != "friend"
    assert found["sum"] == (77 if has_histogram else None)


def test_root_befriends_a_friend(ntuple: Path, tmp_path: Path) -> None:
    if ntuple.stem == "rntuple":
        pytest.skip("friends are of TTrees")
    toy = ToyGenerator(card=make_card())
    friend = tmp_path / "friend.root"
    apply({"K": toy, "T": toy}, ntuple, friend, mode="friend", chunk=300)
    names = ["K_P", "pid.K_DLLk", "pid.T_DLLk"]
    found = read_with_root(friend, names, ntuple)["columns"]
    with uproot.open({friend: "T"}) as tree, uproot.open({ntuple: "T"}) as main:
        assert found["K_P"] == main["K_P"].array().tolist()
        for name in ("K_DLLk", "T_DLLk"):
            assert found[f"pid.{name}"] == tree[name].array().tolist()
