"""Definitions that ship, a definition of one's own, and every way to get one wrong."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from particle import Particle

import pidgan.sample.definition
from pidgan.errors import SampleError
from pidgan.sample.definition import Sample
from pidgan.sample.loading import (
    calibration_directory,
    list_samples,
    load_binning,
    load_sample,
)
from pidgan.sample.variables import DERIVATIONS, Variable, charge_of
from pidgan.simulation.calibration import MODES

OWN = """
schema = 1
title = "My kaons"
detector = "LHCb"
species = "K+"
source = "my thesis"
weight_branch = "sw"
conditions = [
  {name = "P", branch = "K_P", unit = "GeV", range = [3e3, 200e3], transform = "log"},
  {name = "ETA", derive = "eta_from_p_pt", branches = ["K_P", "K_PT"], range = [1, 6]},
]
targets = [{name = "RichDLLk", range = [-150, 150], sentinels = [-999]}]
cuts = ["RichDLLk > 0"]
selection = "K_PT > 0.5"
fiducial = "P > 5000"
binning = {P = [3e3, 1e4, 1e5]}
"""


def write(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list_samples())
def test_shipped(name: str) -> None:
    sample = load_sample(name)
    assert sample.name == name
    assert Particle.from_name(sample.species).name == sample.species
    assert sample.cuts
    assert sample.binning
    assert all(variable.patterns for variable in sample.conditions)
    assert Sample.model_validate_json(sample.model_dump_json(by_alias=True)) == sample
    if name.startswith("run2"):
        assert sample.weight_branch == "probe_sWeight"


@pytest.mark.parametrize("mode", MODES)
def test_simulated_samples_fit_the_simulation(mode: str) -> None:
    for name in (name for name in list_samples() if name.startswith(f"sim_{mode}")):
        sample, truth = load_sample(name), MODES[mode]
        assert sample.discriminant is not None
        assert sample.species == truth.species
        assert set(truth.trees) <= set(sample.trees)
        assert sample.discriminant.branch == truth.mass.branch
        assert sample.discriminant.range == truth.mass.window


def test_default_binning_of_pidcalib() -> None:
    p = load_sample("run2_dstar_k").binning["P"]
    assert (len(p), p[:4], p[-1]) == (19, (3000, 9300, 15600, 19000), 100000)
    np.testing.assert_allclose(np.diff(p[3:]), 5400)
    assert load_sample("run3_jpsi_mu").binning["nLongTracks"] == (0, 50, 200, 300, 500)


def test_a_definition_of_ones_own(tmp_path: Path) -> None:
    sample = load_sample(write(tmp_path, OWN))
    assert sample.name == "own"
    assert sample.branches == ("K_P", "K_PT", "RichDLLk", "sw")
    assert sample.condition_names == ("P", "ETA")
    assert sample.target_names == ("RichDLLk",)
    assert sample.sentinels == {"RichDLLk": (-999,)}
    assert sample.conditions[0].package_unit == "MeV"
    assert load_sample(sample) is sample


def test_the_definition_in_the_documentation(tmp_path: Path) -> None:
    lines = (pidgan.sample.definition.__doc__ or "").splitlines()
    text = "\n".join(line for line in lines if line.startswith("    "))
    assert load_sample(write(tmp_path, text)).condition_names == ("P", "ETA")


def test_extends_replaces_whole_keys(tmp_path: Path) -> None:
    write(tmp_path, OWN)
    child = load_sample(
        write(
            tmp_path,
            'extends = "own.toml"\ntitle = "Mine, fitted"\n'
            'discriminant = {branch = "M", range = [1825, 1910]}\n',
            "child.toml",
        )
    )
    assert (child.name, child.title) == ("child", "Mine, fitted")
    assert child.weight_branch is None  # replaced by the discriminant
    assert child.targets == load_sample(tmp_path / "own.toml").targets
    shipped = write(
        tmp_path, 'extends = "run2_dstar_k"\nspecies = "pi+"\n', "other.toml"
    )
    assert load_sample(shipped).species == "pi+"


def test_a_circle_of_extends(tmp_path: Path) -> None:
    write(tmp_path, 'extends = "b.toml"', "a.toml")
    write(tmp_path, 'extends = "a.toml"', "b.toml")
    with pytest.raises(SampleError, match="in a circle"):
        load_sample(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema is 2: input should be 1"),
        ("schema = 1", "schema = ", r"own.toml is not valid TOML.*line 2"),
        ("targets =", "targts =", "unknown key 'targts'; closest: 'targets'"),
        (
            OWN,
            'afer = "run2_dstar_k"',
            r"toml: unknown key 'afer'; closest: 'after'.*; key 'schema' is missing",
        ),
        (
            "range = [-150, 150]",
            "categories = [16777216, 16777217]",
            r"\['RichDLLk'\]: categories are .* the same number in single precision",
        ),
        ("targets = [", "# targets = [", "key 'targets' is missing, or 'cells'"),
        ('unit = "GeV"', 'unti = "GeV"', r"conditions\['P'\].unti\"; closest: 'unit'"),
        ('unit = "GeV"', 'unit = "TeV"', r"conditions\['P'\].unit is 'TeV'"),
        ("[3e3, 200e3]", "[3e3]", r"conditions\['P'\].range"),
        ("[3e3, 200e3]", "[9e3, 3e3]", "expected low < high"),
        ("[3e3, 200e3]", "[0, 3e3]", "'log' needs a range above 0"),
        ("eta_from_p_pt", "eta_from_pt_p", "closest: 'eta_from_p_pt'"),
        ('["K_P", "K_PT"]', '["K_P"]', r"needs branches = \[p, pt\]"),
        ('name = "ETA"', 'name = "P"', "more than once: P"),
        ('species = "K+"', 'species = "Kplus"', "not the PDG name"),
        ('weight_branch = "sw"', "", "exactly one of weight_branch.*got none"),
        (
            'weight_branch = "sw"',
            'weight_branch = "sw"\nunweighted = true',
            "got weight_branch and unweighted",
        ),
        (
            'weight_branch = "sw"',
            'weight_branch = "sw"\nsweights = {file = "w.root", match = "entry"}',
            "got weight_branch and sweights",
        ),
        ('"RichDLLk > 0"', '"RichDLLK > 0"', "unknown variable 'RichDLLK'"),
        ('"K_PT > 0.5"', '"K_PT + 1"', r"'K_PT \+ 1.0' is not allowed"),
        ("binning = {P =", "binning = {PT =", "binning in 'PT'.*closest: 'P'"),
        ("[3e3, 1e4, 1e5]", "[3e3, 3e3]", "binning: edges of 'P' do not rise"),
        (
            "binning = {P =",
            "map_binning = {P = [3, 2]}\nbinning = {P =",
            "map_binning: e",
        ),
        ("{P = [3e3, 1e4, 1e5]}", '"hadron"', "closest: 'hadrons'"),
        ("sentinels =", "step = 0, sentinels =", r"targets\['RichDLLk'\].step"),
        (
            "sentinels =",
            "integer = true, step = 0.5, sentinels =",
            "step 0.5, expected a",
        ),
        ('unit = "GeV"', 'unit = "GeV", step = 1', "condition 'P' has 'step'"),
        (
            "sentinels =",
            'at_most = "DLLk", sentinels =',
            "'DLLk', which is not a target",
        ),
        (
            "sentinels =",
            'at_most = "RichDLLk", sentinels =',
            "in a circle: RichDLLk <=",
        ),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    path = write(tmp_path, OWN.replace(old, new, 1))
    with pytest.raises(SampleError, match=message) as caught:
        load_sample(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_is_named_once(tmp_path: Path) -> None:
    path = write(tmp_path, OWN.replace('unit = "GeV"', 'unit = "TeV"', 1))
    with pytest.raises(SampleError) as caught:
        load_sample(path)
    assert "unit is 'TeV'" in str(caught.value)
    assert ";" not in str(caught.value)


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="closest: 'run2_dstar_k'"):
        load_sample("run2_dstar_kk")
    with pytest.raises(SampleError, match=r"no file '.*mine.toml'"):
        load_sample(tmp_path / "mine.toml")


def test_derivations_agree_with_each_other() -> None:
    px, py, pz = np.random.default_rng(1).normal(size=(3, 100)) * 1000
    pz = np.abs(pz) + 1.0
    p = DERIVATIONS["p_from_px_py_pz"][1](px, py, pz)
    pt = DERIVATIONS["pt_from_px_py"][1](px, py)
    eta = DERIVATIONS["eta_from_px_py_pz"][1](px, py, pz)
    np.testing.assert_allclose(DERIVATIONS["eta_from_p_pt"][1](p, pt), eta, rtol=1e-6)
    np.testing.assert_allclose(DERIVATIONS["p_from_pt_eta"][1](pt, eta), p)
    assert np.isnan(DERIVATIONS["eta_from_p_pt"][1](np.ones(1), np.full(1, 2.0)))[0]


def test_units_are_converted_and_sentinels_are_not() -> None:
    variable = Variable(
        name="E", branch="e", unit="GeV", range=(0, 1e6), sentinels=(-999.9,)
    )
    columns = {"e": np.array([1.5, -999.9], dtype=np.float32)}
    np.testing.assert_allclose(variable.evaluate(columns), [1500, -999.9], rtol=1e-6)
    assert variable.is_sentinel(columns).tolist() == [False, True]


def test_the_folder_lies_beside_the_package() -> None:
    assert (calibration_directory() / "binnings.toml").is_file()


def test_import_is_light() -> None:
    heavy = "{'uproot', 'keras', 'tensorflow', 'onnxruntime', 'iminuit', 'particle'}"
    code = (
        "import sys, pidgan.sample.definition; "
        f"sys.exit(len({heavy} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_branches_are_names_for_cuts() -> None:
    aliases = load_sample("run2_dstar_k_probnn").aliases
    assert aliases["MC15TuneV1_ProbNNk"] == "ProbNNk"
    assert aliases["probe_MC15TuneV1_ProbNNpi"] == "ProbNNpi"
    assert "MC12TuneV4_ProbNNk" not in aliases
    assert aliases["probe_P"] == "P"
    assert "P" not in aliases


def test_binnings_have_names() -> None:
    hadrons = load_binning("hadrons")
    assert list(hadrons) == ["P", "ETA", "nTracks"]
    assert len(hadrons["P"]) == 19
    assert hadrons["ETA"] == (1.5, 2.375, 3.25, 4.125, 5.0)
    with pytest.raises(SampleError, match=r"no binning 'hadron'.*closest: 'hadrons'"):
        load_binning("hadron")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weight", "'weight' is reserved for the weights of rows; choose another name"),
        ("weight_signal", "'weight_signal' is reserved for the weights of rows"),
        ("pidgan_status", "'pidgan_status' is reserved for the status of rows"),
        ("and", "'and' is a word of the language of cuts"),
        ("abs", "'abs' is a word of the language of cuts"),
        ("#mass", "'#mass' is no name of a column"),
        ("P\\u0000", "is no name of a column"),
        ("P\\n", "is no name of a column"),
    ],
)
def test_names_of_other_columns_are_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    """A target called `weight` once took the place of the weights."""
    for place in ('name = "RichDLLk"', 'name = "P"'):
        path = write(tmp_path, OWN.replace(place, f'name = "{name}"', 1))
        with pytest.raises(SampleError, match=message):
            load_sample(path)


def test_written_samples_keep_such_names(tmp_path: Path) -> None:
    """Version 0.1 took them, and its datasets and cards open."""
    content = load_sample(write(tmp_path, OWN)).model_dump(mode="json")
    content["cuts"] = []
    content["variables"][0]["name"] = "lambda"
    with pytest.raises(ValueError, match="language of cuts"):
        Sample.model_validate(content)
    opened = Sample.model_validate(content, context={"written": True})
    assert opened.targets[0].name == "lambda"


def test_a_branch_may_be_called_weight(tmp_path: Path) -> None:
    path = write(tmp_path, OWN.replace('branch = "K_P"', 'branch = "weight"', 1))
    assert "weight" in load_sample(path).branches


BASE = {
    "schema": 1,
    "title": "t",
    "detector": "d",
    "species": "K+",
    "source": "s",
    "discriminant": {"branch": "M", "range": [1.0, 2.0]},
    "conditions": [
        {"name": "P", "unit": "MeV", "range": [3e3, 2e5], "transform": "log"},
        {
            "name": "E",
            "derive": "eta_from_p_pt",
            "branches": ["a", "b"],
            "range": [1, 5],
        },
        {"name": "c", "categories": [1, 2]},
    ],
    "targets": [{"name": "D", "range": [-1, 1], "sentinels": [-999], "integer": True}],
    "binning": {"P": [3e3, 4e3]},
    "cuts": ["D > 0"],
    "exclude": {"P": [[4e3, 5e3]]},
    "selection": "a > 0",
    "fiducial": "P > 3",
}
CELLS = {
    **{key: BASE[key] for key in ("schema", "title", "detector", "source")},
    "species": "e-",
    "unweighted": True,
    "conditions": [{"name": "energy", "range": [1, 2]}],
    "cells": {
        "geometry": {
            "name": "g",
            "views": [{"name": "c", "layers": [{"x": [0, 1], "y": [0, 1]}]}],
        },
        "arrays": {"c": "cells"},
        "incident": "energy",
        "threshold": 0.1,
        "symmetry": {"mirrors": ["x"], "x": "energy"},
    },
}
WRONG: tuple[Any, ...] = (
    *(5, 1.5, "x", "", True, [], {}, float("nan"), float("inf"), 10**400, "\0", "a\nb"),
    *([1], [[1]], [{}], [5, 1], [0, float("inf")], ["x"], {"x": 1}, {"x": {"y": [1]}}),
    *("a" * 5000, [1] * 3000, "D > " * 300, "D > 0 # P", "(" * 3000, "weight"),
)


#: A quarter of the wrong values at each place; all of them with PIDGAN_MUTANTS.
SKIPPED = 1 if "PIDGAN_MUTANTS" in os.environ else 4


def written(value: Any) -> str:
    """Value as TOML."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {written(v)}" for key, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return json.dumps(value)


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys = content if isinstance(content, dict) else range(len(content))
    for key in list(keys):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from places(content[key])


@pytest.mark.parametrize("base", [BASE, CELLS], ids=["tracks", "cells"])
def test_wrong_values_anywhere_are_one_line(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    path = tmp_path / "own.toml"
    content = copy.deepcopy(base)
    for number, (container, key) in enumerate(places(content)):
        right = container[key]
        for value in WRONG[number % SKIPPED :: SKIPPED]:
            container[key] = value
            text = "\n".join(f"{key} = {written(v)}" for key, v in content.items())
            path.write_text(text, encoding="utf-8")
            try:
                sample = load_sample(path)
            except SampleError as error:
                message = str(error)
                assert str(path) in message, value
                assert "\n" not in message, value
                assert len(message) < 1200, value
            else:
                assert sample.targets
                assert "NaN" not in sample.to_json()
        container[key] = right


JOINED = OWN.replace(
    'weight_branch = "sw"',
    'sweights = {file = "{stem}_sw.root", order = ["Dst_M - D_M", "D_M"]}',
)


def test_sweights_of_another_file(tmp_path: Path) -> None:
    sample = load_sample(write(tmp_path, JOINED))
    weights = sample.sweights
    assert weights is not None
    assert (weights.kind, weights.match) == ("ranks", ("order_index",))
    assert weights.branch == "sweight"
    assert weights.name_for("1.pid_tuple") == "1.pid_tuple_sw.root"
    assert [e.names for e in weights.expressions] == [("Dst_M", "D_M"), ("D_M",)]
    assert "Dst_M" not in sample.branches
    assert "matched by order_index in the order of Dst_M - D_M, D_M" in sample.text()
    assert "(1)" not in sample.text()
    assert Sample.model_validate_json(sample.to_json()) == sample
    child = 'extends = "own.toml"\nunweighted = true\n'
    assert load_sample(write(tmp_path, child, "child.toml")).sweights is None
    write(tmp_path, OWN, "sw.toml")
    text = 'extends = "sw.toml"\nsweights = {file = "w.root", match = ["run", "event"]}'
    child_sample = load_sample(write(tmp_path, text, "child.toml"))
    assert child_sample.weight_branch is None
    assert child_sample.sweights
    assert child_sample.sweights.kind == "keys"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{stem}_sw.root", "sw/{stem}.root", "has a folder or an address"),
        ("{stem}_sw.root", "root://h//{stem}.root", "has a folder or an address"),
        ("{stem}_sw.root", "{name}.root", r"only \{stem\} can stand in braces"),
        ("file =", "flie =", r"unknown key 'sweights.flie'; closest: 'file'"),
        ('"Dst_M - D_M"', '"Dst_M -"', "'Dst_M -' is no expression of branches"),
        ('"Dst_M - D_M"', '"Dst_M > D_M"', "'Dst_M > D_M' is no expression of"),
        ('"Dst_M - D_M"', '"log(D_M)"', "is no expression of branches"),
        ('"Dst_M - D_M"', '"1 + 2"', "names no branch"),
        ('"Dst_M - D_M"', '"D_M"', "named more than once: D_M"),
        ("order =", 'match = ["a", "b"], order =', "order needs match = 'order_index'"),
        ("order =", 'match = "entry", order =', "order needs match = 'order_index'"),
        (', order = ["Dst_M - D_M", "D_M"]', "", "match = 'order_index' needs order"),
        ("order =", 'ties = "drop", order =', r"sweights.ties is 'drop'"),
        ("order =", 'branch = "", order =', r"sweights.branch is ''"),
    ],
)
def test_wrong_sweights(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in JOINED
    with pytest.raises(SampleError, match=message):
        load_sample(write(tmp_path, JOINED.replace(old, new)))


def test_targets_are_not_optional(tmp_path: Path) -> None:
    text = OWN.replace("targets = [{", "targets = [{optional = true, ")
    with pytest.raises(SampleError, match="'RichDLLk' is optional, which conditions"):
        load_sample(write(tmp_path, text))


@pytest.mark.parametrize("name", ["run2_dstar_k", "run3_jpsi_mu", "run3_jpsi_e"])
def test_charge_is_a_condition_of_real_data_alone(name: str) -> None:
    (charge,) = (v for v in load_sample(name).conditions if "charge" in v.name.lower())
    assert charge.categories == (-1, 1)
    assert "trackcharge" not in load_sample("sim_dstar_k").condition_names


def test_charges_of_pdg_ids() -> None:
    ids = np.array([[211.0, -321.0, 2212.0], [13.0, -11.0, 22.0]])
    expected = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(charge_of(ids), expected)
    assert np.isnan(charge_of(np.array([0.0, np.nan, 99999999.0]))).all()
