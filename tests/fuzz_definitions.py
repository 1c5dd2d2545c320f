"""Mutants of definitions and geometries, for `fuzz.py`.

A definition is refused, or a dataset is built from data that fit it, or not at all. A
geometry is refused, or it is one: with cells, observables and a card's table.
"""

import json
import math
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from fuzz import Judge, reason
from mutations import ODD, mutate_content, mutate_text

ROWS = 400
TRACKS: dict[str, Any] = {
    "schema": 1,
    "title": "Kaons of a test",
    "detector": "a detector",
    "species": "K+",
    "source": "a test",
    "weight_branch": "sw",
    "selection": "nTracks > 3 & K_P > 3",
    "fiducial": "P > 3000 & ETA < 5",
    "cuts": ["DLL > 0", "DLL - Prob > 0.5"],
    "exclude": {"P": [[1e4, 2e4]]},
    "data_taking": {"year": "2016"},
    "conditions": [
        {"name": "P", "branch": "K_P", "unit": "GeV", "range": [3e3, 2e5]},
        {
            "name": "ETA",
            "derive": "eta_from_p_pt",
            "branches": ["K_P", "K_PT"],
            "range": [1.0, 6.0],
        },
        {"name": "nTracks", "branch": "nTracks", "range": [1, 1000], "integer": True},
        {"name": "q", "branch": "q", "categories": [-1, 1]},
    ],
    "targets": [
        {"name": "DLL", "branch": "K_DLL", "range": [-150, 150], "sentinels": [-999]},
        {"name": "Prob", "branch": "K_Prob", "range": [0, 1], "transform": "fraction"},
    ],
    "binning": {"P": [3e3, 2e4, 2e5], "ETA": [1, 3, 6]},
    "map_binning": {"P": [3e3, 2e5]},
}
SHOWERS: dict[str, Any] = {
    "schema": 1,
    "title": "Showers of a test",
    "detector": "a block",
    "species": "gamma",
    "source": "a test",
    "unweighted": True,
    "conditions": [
        {"name": "E", "branch": "energy", "unit": "GeV", "range": [1e3, 1e5]}
    ],
    "cells": {
        "arrays": {"cells": "image"},
        "incident": "E",
        "unit": "GeV",
        "geometry": {
            "layers": [{"kind": "rectangular", "nx": 4, "ny": 3, "cell": [10, 10]}]
        },
    },
}
RANKS = {
    "sweights": {
        "file": "{stem}_sw.npz",
        "branch": "sweight",
        "match": ["order_index"],
        "order": ["K_P - K_PT", "nTracks"],
        "ties": "file",
    }
}
MASS = {
    "discriminant": {
        "branch": "m",
        "range": [1800, 1900],
        "signal": "gauss",
        "background": "polynomial",
    }
}
GEOMETRY: dict[str, Any] = {
    "name": "mixture",
    "views": [
        {
            "name": "a",
            "layers": [
                {
                    "kind": "rectangular",
                    "nx": 3,
                    "ny": 2,
                    "cell": [10, 20],
                    "count": 2,
                    "thickness": 3.0,
                },
                {"kind": "rectangular", "x_edges": [0, 1, 3], "y_edges": [0, 2]},
            ],
        },
        {
            "name": "b",
            "layers": [
                {"kind": "cylindrical", "r_edges": [0, 1, 3], "n_alpha": 4, "z": 5.0},
                {"kind": "cylindrical", "n_r": 3, "r_max": 9.0},
                {"kind": "list", "centres": [[0, 0], [4, 1]], "cell": [2, 2]},
            ],
        },
    ],
}
XML = """<Bins>
  <Bin pid="22" name="photon">
    <Layer id="0" r_edges="0,5,10,30" n_bin_alpha="1" />
    <Layer id="2" r_edges="0" n_bin_alpha="1" />
    <Layer id="12" r_edges="0,100" n_bin_alpha="10" />
  </Bin>
</Bins>
"""


def to_toml(value: Any) -> str:
    """Return a value as TOML, None as a text that is none."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(k))} = {to_toml(v)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value).replace("null", "none")


def _document(content: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in content.items())


def _mutant(content: dict[str, Any], rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return mutate_text(_document(content), rng)
    return _document(mutate_content(content, rng)).encode("utf-8", "surrogatepass")


def _write_data(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    p = rng.uniform(2, 150, ROWS)
    is_signal, anywhere = rng.random(ROWS) < 0.6, rng.uniform(1800, 1900, ROWS)
    tracks = {
        "K_P": p,
        "K_PT": p / np.cosh(rng.uniform(1.5, 5, ROWS)),
        "nTracks": rng.integers(1, 500, ROWS),
        "q": rng.choice([-1, 1], ROWS),
        "K_DLL": rng.normal(3, 5, ROWS),
        "K_Prob": rng.uniform(0, 1, ROWS),
        "sw": rng.normal(1, 0.3, ROWS),
        "m": np.where(is_signal, rng.normal(1850, 8, ROWS), anywhere),
    }
    energy = rng.uniform(1, 100, ROWS)
    image = rng.dirichlet(np.ones(12), ROWS) * energy[:, None]
    showers = {"energy": energy, "image": image}
    places = folder / "tracks.npz", folder / "showers.npz"
    np.savez(places[0], **tracks)
    np.savez(places[1], **showers)
    rank = np.argsort(np.lexsort((tracks["nTracks"], p - tracks["K_PT"])))
    np.savez(folder / "tracks_sw.npz", order_index=rank, sweight=tracks["sw"], q=rank)
    return places


def judges(folder: Path) -> dict[str, Judge]:
    """Return functions that make and judge a mutant of a definition, or geometry."""
    from pidgan.calorimeter.geometry_file import load_geometry
    from pidgan.calorimeter.observables import observables
    from pidgan.errors import PidganError
    from pidgan.sample.building import build_dataset
    from pidgan.sample.loading import load_sample

    tracks, showers = _write_data(folder)

    def definition(rng: random.Random) -> str:
        content, data = rng.choice(((TRACKS, tracks), (SHOWERS, showers)))
        if content is TRACKS and rng.random() < 0.4:
            other = rng.choice((MASS, RANKS))
            content = {k: v for k, v in TRACKS.items() if k != "weight_branch"} | other
        path = folder / "mutant.toml"
        path.write_bytes(_mutant(content, rng))
        try:
            sample = load_sample(path)
            sample.text(), sample.to_json(), sample.aliases
            build_dataset(sample, [data], seed=1)
        except PidganError as error:
            return f"refused: {reason(error, path)}"
        return "built"

    def geometry(rng: random.Random) -> str:
        path = folder / rng.choice(("mutant.toml", "mutant.xml"))
        xml = path.suffix == ".xml"
        path.write_bytes(_mutant_xml(rng) if xml else _mutant(GEOMETRY, rng))
        try:
            found = load_geometry(path)
            if found.n_cells < 10_000:
                observables(np.ones((2, found.n_cells)), found)
            if load_geometry(found.to_dict()) != found:
                return "FAILED: another geometry from its own table"
        except PidganError as error:
            return f"refused: {reason(error, path)}"
        return "a geometry"

    return {"definition": definition, "geometry": geometry}


def _mutant_xml(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return mutate_text(XML, rng)
    root = ElementTree.fromstring(XML)
    for _ in range(rng.choice((1, 1, 2))):
        element = rng.choice(list(root.iter()))
        key = rng.choice((*element.attrib, "pid"))
        element.set(key, str(rng.choice((*ODD, "1,2,nan", "0,1e400", "1e9", "-5"))))
    text = ElementTree.tostring(root, encoding="unicode")
    return text.encode("utf-8", "surrogatepass")
