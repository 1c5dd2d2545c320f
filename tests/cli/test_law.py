"""One law for all verbs: a wrong argument is one line and exit code 1 or 2."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from command_line import NO_ERROR, Run, commands
from wrong_arguments import (
    CUTS,
    DURATIONS,
    INPUTS,
    NUMBERS,
    OUTPUTS,
    TEXTS,
    is_chosen,
    time_limit,
    world,  # noqa: F401
)

from pidgan.errors import TrainingError
from pidgan.simulation import ANALYSIS_TREE

CUT = "RichDLLk > 5"
NTUPLE = f"analysis.root:{ANALYSIS_TREE}"
# Words of a verb that works, by parameter; one that stands for itself is an argument.
VALID: dict[str, dict[str, tuple[str, ...]]] = {
    "demo": {"output": ("-o", "new")},
    "samples": {"name": ("sim_dstar_k",)},
    "prepare": {
        "sample": ("sim_dstar_k",),
        "files": ("analysis.root",),
        "output": ("-o", "new"),
    },
    "train": {"dataset": ("kaon",), "output": ("-o", "new"), "steps": ("--steps", "1")},
    "tune": {
        "dataset": ("kaon",),
        "output": ("-o", "new"),
        "trials": ("--trials", "1"),
        "trial_steps": ("--trial-steps", "1"),
    },
    "families": {"name": ("energy",)},
    "compare": {
        "dataset": ("kaon",),
        "output": ("-o", "new"),
        "steps": ("--steps", "1"),
        "families": ("--families", "energy"),
    },
    "validate": {
        "generator": ("kaon.onnx",),
        "dataset": ("kaon",),
        "output": ("-o", "new"),
        "cuts": ("--cut", CUT),
    },
    "table": {
        "source": ("kaon.onnx",),
        "reference": ("kaon.reference.parquet",),
        "cuts": ("--cut", CUT),
        "binning": ("--binning", "P=2"),
    },
    "systematics": {
        "generator": ("kaon.onnx",),
        "reference": ("kaon.reference.parquet",),
        "cuts": ("--cut", CUT),
        "binning": ("--binning", "P=2"),
        "output": ("-o", "new.json"),
    },
    "export": {
        "model": ("kaon.onnx",),
        "output": ("-o", "new.c"),
        "kind": ("--format", "c"),
    },
    "refine": {
        "model": ("kaon-model",),
        "dataset": ("kaon",),
        "output": ("-o", "new.onnx"),
        "ratio_steps": ("--ratio-steps", "1"),
    },
    "campaign": {
        "campaign": ("campaign.toml",),
        "output": ("-o", "new"),
        "status": ("--status",),
    },
    "collect": {"bundles": ("kaon.onnx",), "output": ("-o", "new.toml")},
    "inspect": {"bundle": ("kaon.onnx",)},
    "plot": {"what": ("kaon.onnx",), "output": ("-o", "new.pdf")},
    "report": {"folder": ("reports",)},
    "quantile-map": {
        "files": (NTUPLE,),
        "data": ("--data", NTUPLE),
        "branch": ("--variable", "nTracks"),
        "output": ("-o", "new.json"),
    },
    "apply": {
        "files": (NTUPLE,),
        "tracks": ("--track", "Kplus=kaon.onnx"),
        "output": ("-o", "new.root"),
        "suffix": ("--suffix", "_new"),
        "workers": ("--workers", "1"),
    },
    "correct": {
        "files": (NTUPLE,),
        "tracks": ("--track", "Kplus=kaon.onnx"),
        "output": ("-o", "new.root"),
        "workers": ("--workers", "1"),
    },
    "serve": {
        "bundles": ("kaon.onnx",),
        "http_port": ("--http-port", "0"),
        "no_grpc": ("--no-grpc",),
    },
    "train-corrector": {
        "dataset": ("kaon",),
        "simulated": ("kaon",),
        "output": ("-o", "new"),
    },
    "efficiency": {
        "files": (NTUPLE,),
        "tracks": ("--track", "Kplus"),
        "maps": ("--map", "kmap.json"),
        "cuts": ("--cut", CUT),
        "trust": ("--trust",),
    },
    "closure": {
        "efficiency_map": ("kmap.json",),
        "control": (NTUPLE,),
        "species": ("--species", "K+"),
        "track": ("--track", "Kplus"),
        "unweighted": ("--unweighted",),
        "cuts": ("--cut", CUT),
        "binning": ("--binning", "P=2"),
    },
    "working-point": {
        "signal": ("kaon.onnx",),
        "cut": ("--cut", "RichDLLk > x"),
        "efficiency": ("--efficiency", "0.8"),
    },
    **{
        f"simulate {kind}": {"entries": ("-n", "20"), "output": ("-o", "new.root")}
        for kind in (
            "rich",
            "spectrometer",
            "tpc",
            "calorimeter",
            "analysis",
            "dimuons",
            "showers",
            "clusters",
        )
    },
}
VALID["simulate rich"]["decay"] = ("--decay", "dstar_k")
VALID["simulate spectrometer"]["decay"] = ("--decay", "jpsi_mu")
VALID["simulate tpc"]["species"] = ("--species", "K+")
VALID["simulate calorimeter"]["species"] = ("--species", "K+")

IS_OUTPUT = {"output", "plot", "report", "latex", "columns"}
IS_INPUT = {
    "campaign",
    "files",
    "over",
    "data",
    "sample",
    "bundles",
    "what",
    "beside",
    "control",
}
IS_CUT = {"cuts", "cut", "where"}
IS_PAIR = {
    "tracks": "Kplus",
    "maps": "Kplus",
    "tables": "Kplus",
    "quantile_maps": "nTracks",
    "misid": "",
}


def wrong_values(parameter: click.Parameter) -> Iterator[str]:
    """Yield values of a parameter that are wrong, or look so."""
    name = str(parameter.name)
    if name in IS_OUTPUT:
        yield from OUTPUTS
    elif name in IS_PAIR:
        yield from TEXTS
        yield from INPUTS
        yield from (f"{IS_PAIR[name]}={path}" for path in INPUTS)
    elif name in IS_INPUT or isinstance(parameter.type, click.Path):
        yield from INPUTS
    elif name in IS_CUT:
        yield from CUTS
    elif name == "budget":
        yield from DURATIONS
    elif parameter.type.name in ("integer", "float", "integer range", "float range"):
        yield from NUMBERS
    else:
        yield from TEXTS


def cases() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield verb, parameter and words, one parameter with a wrong value."""
    for verb, command in commands():
        valid = VALID[verb]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.is_flag:
                continue
            name = str(parameter.name)
            is_option = isinstance(parameter, click.Option)
            others = [w for key, words in valid.items() if key != name for w in words]
            # An argument of one word stays at its place.
            for value in wrong_values(parameter):
                if is_option:
                    words = (*others, parameter.opts[0], value)
                else:
                    words = tuple(
                        word
                        for key, given in valid.items()
                        for word in ((value,) if key == name else given)
                    )
                    words = words if name in valid else (*words, value)
                yield verb, f"{verb} {name} {value!r:.40}", (*verb.split(), *words)


CASES = [case for case in cases() if is_chosen(case[1])]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop where work of minutes would begin: the argument was accepted."""

    def stop(*_: object, **__: object) -> None:
        raise TrainingError("work begins")

    with contextlib.suppress(ImportError):
        monkeypatch.setattr("pidgan.training.loop.set_up", stop)
        monkeypatch.setattr("pidgan.report.tuning.set_up", stop)
        monkeypatch.setattr("pidgan.training.refinement.RatioNetwork", stop)
        monkeypatch.setattr("pidgan.report.track_figures.c2st_figure", stop)
        monkeypatch.setattr("pidgan.report.pictures.file_content", stop)
    monkeypatch.setattr("pidgan.service.server._until_signal", stop)
    monkeypatch.setattr("pidgan.cli.demo._train", stop)


@pytest.mark.parametrize("verb", sorted({verb for verb, *_ in CASES}))
def test_wrong_arguments_are_one_line(
    verb: str,
    run: Run,
    world: Path,  # noqa: F811
    no_training: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(world)
    wrong = {}
    for of, what, words in CASES:
        if of != verb:
            continue
        before = set(world.rglob("*"))
        try:
            with time_limit(what):
                result = run(*words)
        except Exception as error:  # what the command line shows as a traceback
            wrong[what] = f"{type(error).__name__}: {error}"[:300]
            continue
        lines = [line for line in result.err.splitlines() if line.strip()]
        errors = [li for li in lines if not re.match(NO_ERROR, li)]
        accepted = "work begins" in result.err
        if result.code not in (0, 1, 2) or (
            result.code and len(errors) != 1 and not accepted
        ):
            wrong[what] = f"{result.code}: {result.err[:500]}"
        if any("Traceback" in line for line in lines):
            wrong[what] = result.err[:500]
        new = {path for path in world.rglob("*") if path not in before}
        # A report comes after its map, and may have the name of one of its files.
        if result.code and new and not accepted and " report " not in what:
            wrong[what] = f"left {sorted(map(str, new))}"
        for path in sorted(new, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert not wrong, "\n".join(f"{what}: {found}" for what, found in wrong.items())
