"""Damaged and hostile files must end in clean errors: no crash, hang or silent success.

    python tests/fuzz.py BUNDLE.onnx NTUPLE.root TRACK -n 10000 --seed 1

Each mutant is a function of its number and the seed. Mutants are judged in a worker
process with limits on memory and time; what ends the worker is a failure of the mutant
it was at.

- A bundle that was only damaged is refused, or it is what it was: equal card, equal
  targets. If its checksum was made anew, as an attacker would, it may be another
  bundle that opens, runs and can be written as C code.
- A ROOT file is refused, or `apply` gives an output of as many entries as the tree has,
  in which targets are missing only where the status says so.
"""

import argparse
import copy
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("bytes", "resealed", "graph", "card", "root")
MEMORY = 6 * 2**30
SECONDS = 30
ROWS = 64


def mutate_bytes(data: bytes, rng: random.Random, *, same_size: bool = False) -> bytes:
    """Damage a file in one to four places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        size = min(rng.choice((1, 2, 4, 8, 64, 1000)), len(changed) - at)
        match rng.choice((0, 1, 5, 6)) if same_size else rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + size] = rng.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = rng.randbytes(size)
            case 4:
                del changed[at:]
            case 5:
                source = rng.randrange(len(changed))
                changed[at : at + size] = changed[source : source + size]
            case _:
                extreme = rng.choice((b"\0", b"\xff", b"\x7f\xff", b"\x80\x00"))
                changed[at : at + size] = (extreme * size)[:size]
    return bytes(changed)


def mutate_graph(data: bytes, rng: random.Random) -> bytes:
    """Change the meaning of a bundle's graph in one to three places."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    operators = [str(s.name) for s in onnx.defs.get_all_schemas() if not s.domain]
    sizes = (-1, 0, 1, 2, 3, 64, 2**20, 2**31, 2**40, 2**62)
    for _ in range(rng.choice((1, 1, 2, 3))):
        node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
        port = rng.choice((*graph.input, *graph.output))
        match rng.randrange(14):
            case 0:
                node.op_type = rng.choice(operators)
            case 1 if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            case 2:
                node.output[0] = rng.choice(names)
            case 3:
                graph.node.remove(node)
            case 4:
                graph.node.append(node)
            case 5:
                node.CopyFrom(rng.choice(graph.node))
            case 6:
                value = rng.choice((rng.choice(sizes), 0.5, "x", [1, 2], [0.5]))
                name = rng.choice(("axis", "to", "alpha", "transB", "axes", "evil"))
                node.attribute.append(onnx.helper.make_attribute(name, value))
            case 7 if tensor.dims:
                tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(sizes)
            case 8:
                tensor.data_type = rng.randrange(24)
            case 9:
                size = len(tensor.raw_data)
                scale = rng.choice((0, 1e-3, 1, 1e3, np.inf, np.nan))
                if tensor.data_type == 7:
                    values = [rng.choice(sizes) for _ in range(size // 8)]
                    tensor.raw_data = np.array(values, np.int64).tobytes()
                else:
                    values = [rng.gauss(0, 1) * scale for _ in range(size // 4)]
                    tensor.raw_data = np.array(values, np.float32).tobytes()
            case 10:
                dims = port.type.tensor_type.shape.dim
                rng.choice(dims).dim_value = rng.choice(sizes)
            case 11:
                model.opset_import[0].version = rng.randrange(25)
            case 12:
                tensor.name = rng.choice(names)
            case 13:
                graph.node.insert(0, graph.node.pop(rng.randrange(len(graph.node))))
    return model.SerializeToString()


def mutate_card(data: bytes, rng: random.Random) -> bytes:
    """Put something odd into one to three places of a bundle's card."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    content = json.loads(model.metadata_props[0].value)
    odd: Sequence[Any] = (
        *(
            None,
            True,
            -1,
            0,
            10**30,
            1e300,
            "",
            "x",
            "\0",
            "\ud800",
            "../../etc/passwd",
        ),
        *([], {}, [[]], "a" * 10_000, [1, "x"], {"schema_version": 1}, float("nan")),
    )
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and rng.random() < 0.7:
                place = place[key]
                continue
            if rng.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(rng.choice(odd))
            break
    model.metadata_props[0].value = json.dumps(content)
    return model.SerializeToString()


def mutant(kind: str, files: dict[str, bytes], rng: random.Random) -> bytes:
    """One mutant of a kind."""
    from pidgan.bundle.bundle_file import seal

    if kind == "root":
        # A file of another size is mostly refused for that.
        return mutate_bytes(files["root"], rng, same_size=rng.random() < 0.8)
    if kind == "bytes":
        return mutate_bytes(files["sealed"], rng)
    change = {"resealed": mutate_bytes, "graph": mutate_graph, "card": mutate_card}
    data = change[kind](files["unsealed"], rng)
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
        return f"refused: {_reason(error, path)}"
    if card == expected["card"] and np.array_equal(y, expected["targets"]):
        return "same"
    return "FAILED: silent success" if kind == "bytes" else "another bundle"


def judge_root(path: Path, track: str, bundle: Any, rng: random.Random) -> str:
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
            {track: bundle},
            path,
            output,
            mode=mode,
            suffix="_new",
            overwrite=True,
        )
    except PidganError as error:
        if output.exists():
            return "FAILED: an output in spite of an error"
        return f"refused: {_reason(error, path)}"
    (source,), (written,) = find_sources(path), find_sources(output)
    entries = {describe_tree(tree).entries for tree in (source, written)}
    if entries != {done.entries}:
        return "FAILED: another number of entries"
    names = [f"{track}_{t}_new" for t in bundle.card.target_names]
    frame = read_columns(written, [*names, f"{track}_pidgan_status_new"])
    missing = frame[names].isna().any(axis=1)
    status = frame[f"{track}_pidgan_status_new"]
    if (missing & (status == 0)).any() or (~missing & ((status & 6) != 0)).any():
        return "FAILED: targets missing without a status, or not missing in spite of it"
    return "applied"


def _reason(error: Exception, path: Path) -> str:
    """The kind of an error message: without path, names and numbers."""
    text = str(error).replace(str(path), "")
    text = re.sub(r"b?'[^']*'|\"[^\"]*\"|[\d.]+", "_", text)
    return " ".join(text.split())[:60]


def work(folder: Path, track: str, seed: int, numbers: range) -> None:
    """Judge mutants; print a line before and after each."""
    from pidgan.bundle.bundle import open_bundle

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    sealed = (folder / "base.onnx").read_bytes()
    files = {
        "sealed": sealed,
        "unsealed": sealed[: sealed.rindex(b"r", 0, sealed.rindex(b"pidgan_sha256"))],
        "root": (folder / "base.root").read_bytes(),
    }
    bundle = open_bundle(folder / "base.onnx", threads=1)
    test = bundle.card.self_test
    assert test is not None
    expected: dict[str, Any] = {
        name: np.array(test[name], np.float32)[:ROWS]
        for name in ("conditions", "noise")
    }
    expected["targets"] = bundle.generate(expected["conditions"], expected["noise"])
    expected["card"] = bundle.card.to_json()
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        kind = KINDS[number % len(KINDS)]
        print(json.dumps([number, kind, None]), flush=True)
        signal.alarm(SECONDS)
        path = folder / ("mutant.root" if kind == "root" else "mutant.onnx")
        path.write_bytes(mutant(kind, files, rng))
        try:
            if kind == "root":
                found = judge_root(path, track, bundle, rng)
            else:
                found = judge_bundle(path, kind, expected)
        # Whatever is not a clean error is what this script looks for.
        except Exception as error:
            found = f"FAILED: {type(error).__name__}: {error}"[:300]
        signal.alarm(0)
        print(json.dumps([number, kind, found]), flush=True)


def run(
    bundle: Path, ntuple: Path, track: str, *, mutants: int, seed: int, first: int = 0
) -> Iterator[tuple[int, str, str]]:
    """Yield number, kind and result of each mutant, from number `first` on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(bundle, folder / "base.onnx")
        shutil.copy(ntuple, folder / "base.root")
        done, end = first, first + mutants
        while done < end:
            span = f"{done}:{end}"
            command = [sys.executable, __file__, "--work", name, track, str(seed), span]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=environment
            ) as worker:
                assert worker.stdout is not None
                at = None
                for line in worker.stdout:
                    number, kind, found = json.loads(line)
                    at = (number, kind) if found is None else None
                    if found is not None:
                        yield number, kind, found
                        done = number + 1
            if worker.returncode > 0 or (worker.returncode and at is None):
                raise RuntimeError(f"the worker failed at mutant {done}")
            if at is not None:
                reason = signal.strsignal(-worker.returncode) or "unknown"
                yield (*at, f"FAILED: the process ended: {reason}")
                done = at[0] + 1


def main() -> None:
    """Run as a script."""
    if sys.argv[1:2] == ["--work"]:
        folder, track, seed, span = sys.argv[2:]
        numbers = range(*map(int, span.split(":")))
        work(Path(folder), track, int(seed), numbers)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("ntuple", type=Path)
    parser.add_argument("track")
    parser.add_argument("-n", "--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    given = parser.parse_args()
    start, counts, failures = time.monotonic(), Counter[tuple[str, str]](), 0
    for number, kind, found in run(
        given.bundle,
        given.ntuple,
        given.track,
        mutants=given.mutants,
        seed=given.seed,
        first=given.first,
    ):
        counts[kind, found] += 1
        if found.startswith("FAILED"):
            failures += 1
            print(f"seed {given.seed} mutant {number} ({kind}): {found}", flush=True)
    for (kind, found), count in sorted(counts.items()):
        print(f"{count:6} {kind:9} {found}")
    print(
        f"seed {given.seed}: {counts.total()} mutants from {given.first} on, "
        f"{failures} failures, "
        f"{time.monotonic() - start:.0f} s"
    )
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
