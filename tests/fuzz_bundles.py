"""Mutants of bundles and of ROOT files, for `fuzz.py`.

- A bundle that was only damaged is refused, or it is what it was: equal card, equal
  targets. If its checksum was made anew, as an attacker would, it may be another
  bundle that opens, runs and can be written as C code.
- A ROOT file is refused, or `apply` gives an output of as many entries as the tree has,
  in which targets are missing only where the status says so.
"""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import Judge, reason
from mutations import mutate_bytes, mutate_card, mutate_graph

ROWS = 64
TRACK = "Kplus"


def judges(folder: Path) -> dict[str, Judge]:
    """Return functions that make and judge a mutant of base.onnx and base.root."""
    from pidgan.bundle.bundle import open_bundle

    sealed = (folder / "base.onnx").read_bytes()
    unsealed = sealed[: sealed.rindex(b"r", 0, sealed.rindex(b"pidgan_sha256"))]
    bundle = open_bundle(folder / "base.onnx", threads=1)
    test = bundle.card.self_test
    assert test is not None
    expected: dict[str, Any] = {
        name: np.array(test[name], np.float32)[:ROWS]
        for name in ("conditions", "noise")
    }
    expected["targets"] = bundle.generate(expected["conditions"], expected["noise"])
    expected["card"] = bundle.card.to_json()
    ntuple = (folder / "base.root").read_bytes()
    path = folder / "mutant.onnx"

    def bundles(kind: str) -> Judge:
        change = {"graph": mutate_graph, "card": mutate_card}.get(kind, mutate_bytes)

        def judge(rng: random.Random) -> str:
            data = change(sealed if kind == "bytes" else unsealed, rng)
            path.write_bytes(data if kind == "bytes" else _sealed(data))
            return judge_bundle(path, kind, expected)

        return judge

    def root(rng: random.Random) -> str:
        # A file of another size is mostly refused for that.
        data = mutate_bytes(ntuple, rng, same_size=rng.random() < 0.8)
        path.with_suffix(".root").write_bytes(data)
        return judge_root(path.with_suffix(".root"), bundle, rng)

    kinds = ("bytes", "resealed", "graph", "card")
    return {kind: bundles(kind) for kind in kinds} | {"root": root}


def _sealed(data: bytes) -> bytes:
    from pidgan.bundle.bundle_file import seal

    try:
        return seal(data)
    except ValueError:
        return data


def judge_bundle(path: Path, kind: str, expected: dict[str, Any]) -> str:
    """Open a mutant of a bundle; return what came of it."""
    from pidgan.bundle.bundle import open_bundle
    from pidgan.bundle.c_file import c_source
    from pidgan.errors import BundleError

    try:
        bundle = open_bundle(path, threads=1)
        card = bundle.card.to_json()
        x, z = expected["conditions"], expected["noise"]
        if (
            len(bundle.card.conditions) != x.shape[1]
            or bundle.card.n_noise != z.shape[1]
        ):
            x = np.ones((ROWS, len(bundle.card.conditions)), np.float32)
            z = np.zeros((ROWS, bundle.card.n_noise), np.float32)
        y = bundle.generate(x, z)
        c_source(bundle, "f")
        bundle.reference()
    except BundleError as error:
        return f"refused: {reason(error, path)}"
    if card == expected["card"] and np.array_equal(y, expected["targets"]):
        return "same"
    return "FAILED: silent success" if kind == "bytes" else "another bundle"


def judge_root(path: Path, bundle: Any, rng: random.Random) -> str:
    """Apply a bundle to a mutant of a ROOT file; return what came of it."""
    from pidgan.application.apply import apply
    from pidgan.errors import PidganError
    from pidgan.files.tables import describe_tree, find_sources, read_columns

    output = path.with_name("out.root")
    shutil.rmtree(output, ignore_errors=True)
    output.unlink(missing_ok=True)
    mode = rng.choice(("append", "replace", "friend"))
    try:
        done = apply(
            {TRACK: bundle},
            path,
            output,
            mode=mode,
            suffix="_new",
            overwrite=True,
        )
    except PidganError as error:
        if output.exists():
            return "FAILED: an output in spite of an error"
        return f"refused: {reason(error, path)}"
    (source,), (written,) = find_sources(path), find_sources(output)
    entries = {describe_tree(tree).entries for tree in (source, written)}
    if entries != {done.entries}:
        return "FAILED: another number of entries"
    names = [f"{TRACK}_{t}_new" for t in bundle.card.target_names]
    frame = read_columns(written, [*names, f"{TRACK}_pidgan_status_new"])
    missing = frame[names].isna().any(axis=1)
    status = frame[f"{TRACK}_pidgan_status_new"]
    if (missing & (status == 0)).any() or (~missing & ((status & 6) != 0)).any():
        return "FAILED: targets missing without a status, or not missing in spite of it"
    return "applied"
