"""Damage to files, by chance: bytes, lines, the content of documents, graphs.

Each function returns a damaged copy of what it gets; the same state of the random
numbers gives the same copy.
"""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

# What no program writes into a document, and a user or attacker might.
ODD: Sequence[Any] = (
    *(None, True, -1, 0, 5, 10**30, 1e300, float("nan"), float("inf"), 0.5),
    *(
        "",
        "x",
        "\0",
        "a\0b",
        "\ud800",
        "../../etc/passwd",
        ".",
        "/dev/zero",
        "a" * 10_000,
    ),
    *([], {}, [[]], [1, "x"], [1, 2], [2, 1], {"schema_version": 1}, ["x", "x"]),
    *("P > 0", "(" * 300, "1 > " * 400, "root://host/x"),
)


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


def mutate_content(content: Any, rng: random.Random) -> Any:
    """Put something odd into one to three places of a document."""
    content = copy.deepcopy(content)
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
            match rng.randrange(10):
                case 0 | 1:
                    del place[key]
                case 2:
                    place[key] = copy.deepcopy(place[rng.choice(keys)])
                case 3 if isinstance(place, dict):
                    place[rng.choice(("x", "", "name", str(key) * 2))] = place[key]
                case _:
                    place[key] = copy.deepcopy(rng.choice(ODD))
            break
    return content


def mutate_text(text: str, rng: random.Random) -> bytes:
    """Damage a text: a word, a line or a few bytes of it."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 2:
            words = text.split()
            old, new = rng.choice(words), rng.choice((rng.choice(words), "-1", "1e400"))
            return text.replace(old, new, 1).encode()
        case 3:
            lines[at] = lines[at].replace("=", rng.choice(("= [", "= -", "= 1", "")))
        case _:
            return mutate_bytes(text.encode(), rng)
    return "".join(lines).encode("utf-8", "surrogatepass")


def mutate_card(data: bytes, rng: random.Random) -> bytes:
    """Put something odd into one to three places of a bundle's card."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    content = mutate_content(json.loads(model.metadata_props[0].value), rng)
    model.metadata_props[0].value = json.dumps(content)
    return model.SerializeToString()
