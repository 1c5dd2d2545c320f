"""The analysis verbs run in the base install, without any training library.

`.ci/run` names the Python of such an installation in PIDGAN_BASE_PYTHON. Everywhere,
every verb is tried in a process that cannot import these libraries.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_law import VALID
from wrong_arguments import world  # noqa: F401

PYTHON = os.environ.get("PIDGAN_BASE_PYTHON", "")

needs_base = pytest.mark.skipif(
    not PYTHON, reason="PIDGAN_BASE_PYTHON names no base installation"
)

TRAINING = (
    *("iminuit", "jinja2", "keras", "matplotlib", "mplhep", "onnx", "sklearn"),
    *("sweights", "tensorflow", "distributed", "dask", "h5py", "optuna"),
    *("grpc", "prometheus_client", "tritonclient"),
)
BLOCKED = f"""
import json, sys
sys.modules.update(dict.fromkeys({TRAINING!r}))
import pidgan.cli
for words in json.loads(sys.argv[1]):
    sys.argv = ["pidgan", *words]
    try:
        pidgan.cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    print("CODE", code, flush=True)
    print("CODE", code, file=sys.stderr, flush=True)
"""
# Verbs that need more than the base install, and perhaps even to say what is wrong.
NEED_TRAINING = {
    "demo",
    "train",
    "train-corrector",
    "plot",
    "report",
    "compare",
    "validate",
    "refine",
    "tune",
    "serve",
}


def _run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(PYTHON).parent / "pidgan"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@needs_base
def test_analysis_world(kaon_bundle: Path, analysis_file: Path, tmp_path: Path) -> None:
    replace = ("-o", "out.root", "--mode", "replace")
    for arguments in (
        ("samples",),
        ("inspect", kaon_bundle, "--verify"),
        ("export", kaon_bundle, "--format", "c", "-o", "kaon.c"),
        ("apply", "--track", f"Kplus={kaon_bundle}", analysis_file, *replace),
        ("table", kaon_bundle, "--cut", "RichDLLk > 0", "--binning", "P=4"),
        ("working-point", kaon_bundle, "--cut", "RichDLLk > x", "--efficiency", "0.8"),
        ("systematics", kaon_bundle, "--cut", "RichDLLk > 0", "-o", "map.json"),
        ("efficiency", "out.root", "--track", "Kplus", "--map", "map.json"),
    ):
        done = _run(*arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)


@needs_base
def test_training_verbs_say_what_is_missing(tmp_path: Path, kaon_dataset) -> None:
    kaon_dataset.save(tmp_path / "data")
    done = _run("train", "data", "-o", "model", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("pidgan: error:")
    assert '".[train]"' in done.stderr


@needs_base
def test_no_training_library_is_there(tmp_path: Path) -> None:
    code = "import tensorflow"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, cwd=tmp_path)
    assert done.returncode != 0


def test_every_verb_without_training(world: Path) -> None:  # noqa: F811
    verbs = list(VALID)
    words = [
        [*verb.split(), *(word for given in VALID[verb].values() for word in given)]
        for verb in verbs
    ]
    for number, line in enumerate(words):  # no two outputs of one name
        line[:] = [w.replace("new", f"new{number}") for w in line]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, json.dumps(words)],
        capture_output=True,
        text=True,
        cwd=world,
        check=False,
    )
    parts = done.stderr.split("CODE ")
    results = {
        verb: (parts[i + 1][0], parts[i].partition("\n")[2] if i else parts[i])
        for i, verb in enumerate(verbs)
    }
    for verb, (code, text) in results.items():
        if verb == "prepare":  # of an analysis ntuple
            assert code == "1"
            assert "has none of the trees" in text
        elif verb == "correct":  # by a generator
            assert code == "1"
            assert "is a generator" in text
        elif verb in NEED_TRAINING:
            lines = [li for li in text.splitlines() if li.startswith("pidgan: error:")]
            assert (code, len(lines)) == ("1", 1), (verb, text)
            extra = "serve" if verb == "serve" else "train"
            assert f".[{extra}]" in lines[0], (verb, text)
            assert "Traceback" not in text, verb
        else:
            assert code == "0", (verb, text)
