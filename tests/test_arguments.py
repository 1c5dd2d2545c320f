"""One law for all public functions: a wrong argument is named, before any work."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_surface import listed
from wrong_arguments import CUTS, INPUTS, is_chosen, time_limit, world  # noqa: F401

import pidgan
from pidgan.application.conditions import Conditions
from pidgan.application.quantile_map import QuantileMap, make_quantile_map
from pidgan.arguments import checked
from pidgan.bounds import BOUNDS
from pidgan.bundle.collection import Collection
from pidgan.efficiency.binning import Binning
from pidgan.efficiency.working_point import working_point
from pidgan.errors import PidganError, TrainingError
from pidgan.sample.definition import Discriminant
from pidgan.simulation import ANALYSIS_TREE
from pidgan.simulation.tpc_clusters import draw_helices

CUT = "RichDLLk > 0"
HELD = "RichDLLk > 5"  # by the map
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 5, 1.5, 10**400, float("nan"), float("inf"), 1j),
    *("", "x", "\0", "é", b"x", (), [], {}, set(), [1], [None], {"a": 1}, {1: "a"}),
    *(("x", "y"), {"P": "x"}, {"P": -1}, {"P": [2, 1]}, {"P": []}, {"nTracks": "0"}),
    *(object(), int, len, Path("none"), Path("."), np.nan, np.int64(3), np.array([])),
    *(np.ones((2, 2, 2)), np.array(["a"]), np.array([np.nan, 1.0]), pd.DataFrame()),
    *(pd.DataFrame({"P": ["a"]}), iter(()), range(3), Exception("x")),
)
# Functions whose arguments are documented as those of a published formula, for arrays
# of any library; and functions of no argument but files of this package.
FREE = {"Frame.cross", "Frame.features", "Frame.place", "Frame.residuals"}


@pytest.fixture(scope="module")
def things(world: Path) -> dict[str, Any]:  # noqa: F811
    """Valid values of arguments, by name."""
    pytest.importorskip("tensorflow")
    from pidgan.report.map_page import MapInput
    from pidgan.training.model import open_model

    bundle = pidgan.open_bundle(world / "kaon.onnx")
    rows = bundle.reference()
    assert rows is not None
    rng = np.random.default_rng(1)
    n = rng.uniform(0, 1, 300)
    efficiency_map = pidgan.EfficiencyMap.open(world / "kmap.json")
    point = working_point(
        bundle, cut="RichDLLk > x", efficiency=0.8, binning={"P": 2}, repeats=1
    )
    quoted = {"maps": {"Kplus": efficiency_map}, "files": world / "analysis.root"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pidgan.pid_efficiency(**quoted, trust=True)
        matrix = pidgan.misid_matrix(**quoted, trust=True)
        # The map is of an older version, which cannot tell whose rows these are.
        control = pidgan.closure(efficiency_map, pidgan.Dataset.open(world / "kaon"))
    return {
        "found": found,
        "matrix": matrix,
        "model": open_model(world / "kaon-model"),
        "nominal": MapInput(map=efficiency_map, generator=bundle, reference=rows),
        "point": point,
        "helices": draw_helices(20),
        "bundle": bundle,
        "dataset": pidgan.Dataset.open(world / "kaon"),
        "map": efficiency_map,
        "control": control,
        "qmap": make_quantile_map(n, 2 * n),
        "frame": rows,
        "numbers": n,
        "mass": rng.normal(1850, 8, 300),
        "world": world,
    }


def valid(name: str, t: Mapping[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Return the object of a method and valid arguments, None for no such function."""
    world, bundle, numbers = t["world"], t["bundle"], t["numbers"]  # noqa: F811
    ntuple, frame, dataset = world / "analysis.root", t["frame"], t["dataset"]
    source, new = f"{ntuple}:{ANALYSIS_TREE}", world / "new"
    p, eta, tracks = numbers * 5e3 + 3e3, numbers * 0.5 + 0.2, numbers * 9 + 50
    fast = {"binning": {"P": 2}, "cuts": CUT, "repeats": 1}
    images = np.abs(np.random.default_rng(1).normal(size=(40, 4, 6)))
    table = {"frame": frame[["P", "ETA", "RichDLLk"]], "cuts": CUT, "binning": {"P": 2}}
    species = {"species": "K+", "n": 20}
    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "load_sample": (None, {"name_or_path": "sim_dstar_k"}),
        "convert_pidcalib_sample": (
            None,
            {"from_pidcalib": world / "samples.json", "name": "Turbo16-MagUp-K"},
        ),
        "list_pidcalib_samples": (None, {"from_pidcalib": world / "samples.json"}),
        "save_pidcalib_samples": (
            None,
            {"from_pidcalib": world / "samples.json", "output": new},
        ),
        "build_dataset": (None, {"sample": "sim_dstar_k", "files": source}),
        "Dataset.part": (dataset, {"name": "test"}),
        "Dataset.frame": (dataset, {"name": "test"}),
        "Dataset.save": (dataset, {"path": new}),
        "Dataset.open": (type(dataset), {"path": world / "kaon"}),
        "compute_sweights": (
            None,
            {
                "mass": t["mass"],
                "discriminant": Discriminant(branch="m", range=(1800, 1900)),
            },
        ),
        "train": (None, {"dataset": dataset, "steps": 1}),
        "tune": (
            None,
            {"dataset": dataset, "directory": new, "trials": 1, "trial_steps": 1},
        ),
        "open_model": (None, {"path": world / "none"}),
        "describe_family": (None, {"name": "energy"}),
        "parse_settings": (None, {"family": "energy", "settings": {"width": 8}}),
        "train_members": (None, {"dataset": dataset, "directory": new, "members": 2}),
        "member_paths": (None, {"path": world}),
        "compare_families": (
            None,
            {"dataset": dataset, "directory": new, "families": ["energy"], "steps": 1},
        ),
        "refine": (None, {"model": t["model"], "dataset": dataset}),
        "validate": (None, {"generator": bundle, "dataset": dataset, "cuts": CUT}),
        "export_bundle": (None, {"model": t["model"], "path": new}),
        "open_bundle": (None, {"path": world / "kaon.onnx"}),
        "export_triton": (
            None,
            {"generators": world / "kaon.onnx", "repository": world / "new"},
        ),
        "serve": (None, {"bundles": [world / "kaon.onnx"], "no_grpc": True}),
        "export_collection_c": (
            None,
            {
                "collection": Collection.open(world / "collection.toml"),
                "path": world / "new.c",
            },
        ),
        "collect": (
            None,
            {"bundles": [world / "kaon.onnx"], "output": world / "new.toml"},
        ),
        "Collection.open": (Collection, {"path": world / "collection.toml"}),
        "Collection.open_bundles": (
            Collection.open(world / "collection.toml"),
            {},
        ),
        "Collection.text": (Collection.open(world / "collection.toml"), {}),
        "Bundle.sample": (bundle, {"frame": frame, "threads": 1}),
        "Collection.sample": (
            Collection.open(world / "collection.toml"),
            {"frame": frame, "threads": 1},
        ),
        "Bundle.generate": (bundle, {"conditions": frame[["P", "ETA", "nTracks"]]}),
        "make_quantile_map": (None, {"simulation": numbers, "data": 2 * numbers}),
        "QuantileMap.evaluate": (t["qmap"], {"values": numbers}),
        "QuantileMap.save": (t["qmap"], {"path": new}),
        "QuantileMap.open": (QuantileMap, {"path": world / "occupancy.json"}),
        "apply": (
            None,
            {
                "tracks": {"Kplus": world / "kaon.onnx"},
                "files": source,
                "output": world / "new.root",
                "suffix": "_new",
                "workers": 1,
                "dry_run": True,
            },
        ),
        "correct": (
            None,
            {
                "tracks": {"Kplus": world / "kaon.onnx"},
                "files": source,
                "output": world / "new.root",
                "workers": 1,
                "dry_run": True,
            },
        ),
        "open_simulation": (
            None,
            {"dataset": world / "kaon", "files": str(world / "kaon")},
        ),
        "train_corrector": (
            None,
            {"dataset": world / "kaon", "simulated": world / "kaon"},
        ),
        "efficiency_table": (None, table),
        "cut_covariance": (None, table),
        "choose_edges": (None, {"binning": {"P": 2}, "columns": frame[["P", "ETA"]]}),
        "equal_population": (None, {"values": numbers, "n_bins": 3}),
        "load_binning": (None, {"name": "hadrons"}),
        "closure_table": (None, {"generator": bundle, "reference": frame, **fast}),
        "run_systematics": (None, {"generator": bundle, "reference": frame, **fast}),
        "EfficiencyMap.joint_covariance": (t["map"], {"i": 0, "j": 0}),
        "EfficiencyMap.propagate": (
            t["map"],
            {"fractions": np.full(t["map"].nominal.shape[1], 0.1)},
        ),
        "EfficiencyMap.save": (t["map"], {"path": world / "new.json"}),
        "EfficiencyMap.open": (type(t["map"]), {"path": world / "kmap.json"}),
        "pid_efficiency": (
            None,
            {"maps": {"Kplus": t["map"]}, "files": source, "cuts": CUT},
        ),
        "run_campaign": (None, {"campaign": world / "campaign.toml", "output": new}),
        "campaign_status": (None, {"campaign": world / "campaign.toml"}),
        "Campaign.open": (pidgan.Campaign, {"path": world / "campaign.toml"}),
        "derive_target": (
            None,
            {"generator": bundle, "name": "bdt", "function": lambda rows: rows["P"]},
        ),
        "fit_workspace": (None, {"found": t["found"]}),
        "write_fit_workspace": (
            None,
            {"found": t["found"], "path": world / "new.json"},
        ),
        "misid_matrix": (
            None,
            {"maps": {"Kplus": t["map"]}, "files": source, "trust": True},
        ),
        "MisIDMatrix.save": (t["matrix"], {"path": world / "new.csv"}),
        "sysvar_table": (None, {"efficiency_map": t["map"], "cut": HELD}),
        "write_sysvar_table": (
            None,
            {"efficiency_map": t["map"], "path": world / "new.csv", "cut": HELD},
        ),
        "working_point": (
            None,
            {
                "signal": bundle,
                "cut": "RichDLLk > x",
                "efficiency": 0.8,
                "binning": {"P": 2},
                "repeats": 1,
                "thresholds": [0.0, 5.0],
            },
        ),
        "scan_cut": (
            None,
            {
                "signal": bundle,
                "cut": "RichDLLk > x",
                "binning": {"P": 2},
                "repeats": 1,
                "thresholds": [0.0, 5.0],
            },
        ),
        "closure": (
            None,
            {"efficiency_map": t["map"], "control": dataset, "cuts": CUT},
        ),
        "transfer": (None, {"efficiency_map": t["map"], "control": t["control"]}),
        "write_control_report": (None, {"control": t["control"], "directory": new}),
        "write_map_report": (None, {"nominal": t["nominal"], "directory": new}),
        "write_working_point_report": (None, {"point": t["point"], "directory": new}),
        "write_efficiency_columns": (
            None,
            {
                "maps": {"Kplus": t["map"]},
                "files": source,
                "output": world / "new.root",
                "cuts": CUT,
            },
        ),
        "plot": (None, {"what": frame}),
        "write_index": (None, {"folder": world}),
        "run_demo": (None, {"output": new}),
        "export_c": (None, {"bundle": bundle, "path": world / "new.c"}),
        "simulate_calibration": (None, {"decay": "dstar_k", "n": 20}),
        "simulate_spectrometer": (None, {"decay": "jpsi_mu", "n": 20}),
        "simulate_dimuons": (None, {"n": 20}),
        "simulate_spectrometer_response": (
            None,
            {
                "species": "mu+",
                "p": [2e4],
                "eta": [3.0],
                "n_tracks": [99.0],
                "seed": 1,
                "charge": [1.0],
            },
        ),
        "simulate_tpc": (None, species),
        "simulate_tpc_response": (
            None,
            {
                "species": "K+",
                "p": p,
                "eta": eta,
                "n_clusters": tracks,
                "n_tracks": tracks,
                "seed": 1,
            },
        ),
        "expected_dedx": (None, {"p": p, "species": "K+"}),
        "n_sigma": (
            None,
            {"dedx": numbers + 1, "p": p, "n_clusters": tracks, "species": "K+"},
        ),
        "simulate_calorimeter": (None, species),
        "simulate_calorimeter_response": (
            None,
            {"species": "K+", "p": p, "eta": eta, "n_tracks": tracks, "seed": 1},
        ),
        "simulate_cluster_tracks": (None, {"n": 20}),
        "simulate_clusters": (None, {"helices": t["helices"]}),
        "helix_points": (None, {"helices": t["helices"], "radii": [1.0, 2.0]}),
        "image_moments": (None, {"images": images}),
        "moments_chi2": (
            None,
            {"real": images, "generated": images, "conditions": numbers[:40]},
        ),
        "chi2_floor": (None, {"images": images, "conditions": numbers[:40]}),
        "amplitude_spectrum": (None, {"images": images, "edges": [0.0, 1.0, 2.0]}),
        "simulate_analysis": (None, {"n": 20}),
        "simulate_showers": (None, {"n": 20, "seed": 1}),
        "simulate_response": (
            None,
            {
                "species": "K+",
                "p": p * 2,
                "eta": eta + 2,
                "n_tracks": tracks,
                "seed": 1,
            },
        ),
        "Conditions": (None, {}),
    }
    return found.get(name)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions, and methods, that have arguments."""
    yield "Conditions", Conditions
    for name, found in listed():
        if callable(found) and not inspect.isclass(found) and name not in FREE:
            names = [*inspect.signature(found).parameters]
            if set(names) - {"self", "cls"}:
                yield name, found


def values(name: str) -> Iterator[Any]:
    yield from JUNK
    if name in ("cut", "cuts", "where"):
        yield from CUTS
        yield from ([cut] for cut in CUTS)
    if name in ("path", "name_or_path", "sample", "from_pidcalib"):
        yield from INPUTS


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise TrainingError("work begins")

    monkeypatch.setattr("pidgan.training.loop.set_up", stop)
    monkeypatch.setattr("pidgan.report.tuning.set_up", stop)
    monkeypatch.setattr("pidgan.report.track_figures.target_figures", stop)
    monkeypatch.setattr("pidgan.training.refinement.RatioNetwork", stop)
    monkeypatch.setattr("pidgan.report.map_page.write_page", stop)
    monkeypatch.setattr("pidgan.report.control_page.write_page", stop)
    monkeypatch.setattr("pidgan.service.server._until_signal", stop)
    monkeypatch.setattr("pidgan.cli.demo._train", stop)


@pytest.mark.parametrize("name", [name for name, _ in functions()])
def test_a_wrong_argument_is_named(
    name: str, things: dict[str, Any], no_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(things["world"])
    known = valid(name, things)
    if known is None and "." in name:
        return  # a method of a result: the decorator is tested below
    assert known is not None, f"{name} has no valid arguments here"
    owner, given = known
    function = dict(functions())[name]
    method = function if owner is None else getattr(owner, name.split(".")[-1])
    wrong = []
    for argument in inspect.signature(function).parameters:
        for value in values(argument) if argument not in ("self", "cls") else ():
            what = f"{name}({argument}={value!r:.60})"
            if not is_chosen(what.partition(" at 0x")[0]):
                continue
            with time_limit(what), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem = _problem(method, {**given, argument: value}, argument)
            if problem:
                wrong.append(f"{what}: {problem}")
    for path in things["world"].glob("new*"):
        path.unlink() if path.is_file() else None
    assert not wrong, "\n".join(wrong)


def _problem(method: Any, given: dict[str, Any], argument: str) -> str:
    """Return what is wrong with how a call ends."""
    try:
        method(**given)
    except PidganError as error:
        return "several lines" if "\n" in str(error) else ""
    except (ValueError, TypeError) as error:
        text = str(error)
        names = {name.rstrip("s") for name in given} | {"edges", "n_bins", "column"}
        is_named = argument.rstrip("s") in text or any(name in text for name in names)
        is_short = "\n" not in text and len(text) < 1000
        return "" if is_named and is_short else f"{type(error).__name__}: {text[:300]}"
    except Exception as error:  # what the law forbids
        return f"{type(error).__name__}: {error!s:.300}"
    return ""


def test_every_public_function_is_checked() -> None:
    pytest.importorskip("tensorflow")
    own = {"Bundle.generate", "Conditions", "Pictures.only"}  # check by themselves
    bare = [n for n, f in functions() if not hasattr(f, "__wrapped__") and n not in own]
    assert not bare


@checked
def draw(
    path: str | Path,
    *,
    seed: int = 1,
    weight: float | None = None,
    binning: Binning | None = None,
    shares: tuple[float, float] = (0.5, 0.5),
) -> Any:
    return path, seed, weight, binning, shares


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": 3}, "draw: path is 3 (int), expected str or Path"),
        ({"path": ""}, "draw: path is '', expected a path"),
        ({"path": "a\0"}, "without NUL"),
        ({"seed": "1"}, "draw: seed is '1' (str), expected int"),
        ({"seed": True}, "seed is True (bool), expected int"),
        ({"seed": 1.0}, "seed is 1.0 (float), expected int"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"seed": 2**63}, f"expected at most {BOUNDS['seed'][1]}"),
        ({"weight": float("nan")}, "weight is nan, expected a finite number"),
        ({"weight": [1.0]}, "weight is [1.0] (list), expected float or None"),
        ({"binning": {"P": 1.5}}, "binning is {'P': 1.5} (dict), expected str or Map"),
        ({"shares": (1.0,)}, "shares is (1.0,) (tuple), expected tuple[float, float]"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_messages(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as found:
        draw(**{"path": "x", **given})
    assert message in str(found.value)


def test_right_arguments_pass() -> None:
    assert draw("x") == ("x", 1, None, None, (0.5, 0.5))
    seed: Any = np.int64(7)
    _, found, weight, *_ = draw(Path("x"), seed=seed, weight=np.float32(0.5))
    assert (type(found), found, type(weight), weight) == (int, 7, float, 0.5)
    for binning in ("hadrons", {"P": 3}, {"P": [1, 2.5]}, {"P": np.arange(3.0)}, None):
        assert draw("x", binning=binning)[3] is binning
