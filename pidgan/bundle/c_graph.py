"""A graph as a C function, whole or in parts, for one row or for a block of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pidgan.bundle.c_operators import HELPERS, TRANSLATIONS
from pidgan.bundle.c_regions import LANES, Region, find_regions, in_order
from pidgan.bundle.c_writer import Constants, Step, Writer, number_text
from pidgan.bundle.card import SIMULATED
from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_values import Value

MOST_LINES, PART_LINES = 4000, 600
"""Lines of a function, and of its parts if it is longer: compilers need much more than
twice the time for a function that is twice as long."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A C function that computes `targets` from `conditions` and `noise`.

    `functions` has functions that it calls and others may share, by name, and `parts`
    those of its own. `scratch` is the size of the memory that it takes from its caller
    in bytes; it is 0 if its arrays are local ones.
    """

    body: str
    parts: str
    functions: dict[str, str]
    scratch: int


def translate(
    nodes: Sequence[Node],
    values: Mapping[str, Value],
    constants: Constants,
    *,
    rows: int,
    name: str,
    stack: int,
) -> Translated:
    """Return the C function of a graph for 1 row, or for a block of rows.

    `name` begins the names of its parts. Its arrays are local ones if they need no more
    than `stack` bytes. The regions of a row are computed for the entries that are
    needed. A ValueError says that an operator has no translation.
    """
    writer = Writer(rows=rows, constants=constants)
    writer.places |= {"conditions": "conditions", "noise": "noise"}
    if SIMULATED in values:
        # Those of a corrector come after the conditions, in one array.
        first = f"{values['conditions'].size}{' * ROWS' if rows > 1 else ''}"
        writer.places[SIMULATED] = f"(conditions + {first})"
    ends = _write(writer, nodes, values)
    size, parts, body = writer.n_bytes(), {}, ""
    local = size <= stack
    if local and len(writer.lines) <= MOST_LINES:
        body = "\n".join([writer.local_arrays(), *writer.lines])
    else:
        parts = _in_parts(writer, ends, name)
        calls = [f"    {part}({_ARGUMENTS});" for part in parts]
        memory = f"    long long memory[{size // 8}];\n    void *scratch = memory;"
        body = "\n".join([memory, *calls] if local else calls)
    text = "\n".join([body, *parts.values()])
    helpers = {
        helper: _HELPER.format(comment, kind, helper, arguments, statements)
        for helper, (comment, kind, arguments, statements) in HELPERS.items()
        if f"{helper}(" in text
    }
    return Translated(
        body=body,
        parts="\n".join(parts.values()),
        functions=helpers | writer.functions,
        scratch=0 if local else size,
    )


def _write(
    writer: Writer, nodes: Sequence[Node], values: Mapping[str, Value]
) -> list[int]:
    """Write all nodes; return the number of lines at the end of each."""
    regions = find_regions(nodes, values) if writer.rows == 1 else {}
    order = in_order(nodes, regions)
    last_use = {
        name: place
        for place, number in enumerate(order)
        for name in (*nodes[number].outputs, *nodes[number].inputs)
    }
    for place, number in enumerate(order):
        if number in regions:
            # A region is a loop: what it reads stays until its end.
            last_use |= {
                name: max(place, last_use[name]) for name in regions[number].read
            }
    begins = {region.numbers[0]: region for region in regions.values()}
    ends, place = [], 0
    while place < len(order):
        region = begins.get(order[place])
        if region is None:
            _write_node(writer, nodes, values, (order[place], place), last_use)
            place += 1
        else:
            stop = place + len(region.numbers) + 1
            part = [(order[at], at) for at in range(place, stop)]
            _write_region(writer, nodes, values, region, part, last_use)
            place = stop
        ends.append(len(writer.lines))
    return ends


def _write_node(
    writer: Writer,
    nodes: Sequence[Node],
    values: Mapping[str, Value],
    at: tuple[int, int],
    last_use: Mapping[str, int],
) -> None:
    """Write the node of some number, at some place of the order."""
    number, place = at
    node = nodes[number]
    step = Step(writer, node, values)
    (name,) = node.outputs
    if name == "targets":
        writer.places[name] = name
    elif name not in writer.held:
        writer.allocate(name, step.output)
    writer.lines.append(f"    /* {number}: {node.operator} */")
    if node.operator not in TRANSLATIONS:
        raise ValueError(f"operator {node.operator} has no translation to C")
    TRANSLATIONS[node.operator](step)
    for used in dict.fromkeys((*node.inputs, *node.outputs)):
        if used and last_use[used] == place:
            writer.release(used, values[used].dtype)


def _write_region(
    writer: Writer,
    nodes: Sequence[Node],
    values: Mapping[str, Value],
    region: Region,
    part: Sequence[tuple[int, int]],
    last_use: Mapping[str, int],
) -> None:
    """Write the loop over the entries of a region, and the Where at its end."""
    end = nodes[region.end]
    result = values[end.outputs[0]]
    rest = values[end.inputs[2]].constant
    assert rest is not None
    y = writer.allocate(end.outputs[0], result)
    entries = replace(result, dtype="int64")
    listed = f"entries of {region.end}"
    n, k = writer.allocate(listed, entries), region.size
    mask = writer.places[region.mask]
    writer.lines += [
        f"    /* {region.end}: where needed, {LANES} at a time */",
        "    {",
        "    int count = 0;",
        f"    for (int i = 0; i < {k}; ++i) {{",
        f"        {y}[i] = {number_text(rest.ravel()[0])};",
        f"        {n}[count] = i;",
        f"        count += {mask}[i];",
        "    }",
        "    for (int first = 0; first < count; first += LANES) {",
        "        int at[LANES];",
        "        for (int l = 0; l < LANES; ++l)",
        f"            at[l] = (int){n}[first + l < count ? first + l : count - 1];",
    ]
    writer.region = region
    for at in part:
        _write_node(writer, nodes, values, at, last_use)
    writer.region = None
    writer.lines += ["    }", "    }"]
    writer.release(listed, "int64")


def _in_parts(writer: Writer, ends: Sequence[int], name: str) -> dict[str, str]:
    """Return the functions, by name, that do the work of some nodes after another."""
    parts: dict[str, str] = {}
    first = 0
    for end in ends:
        if end - first < PART_LINES and end != ends[-1]:
            continue
        text = "\n".join(writer.lines[first:end])
        part = f"{name}_{len(parts)}"
        parts[part] = _PART.format(part, writer.arrays_in_scratch(text), text)
        first = end
    return parts


_ARGUMENTS = "targets, conditions, noise, scratch"
_PART = """\
static APART void {}(float *restrict targets, const float *restrict conditions,
                     const float *restrict noise, char *restrict scratch)
{{
    (void)targets, (void)conditions, (void)noise; /* Some parts need none. */
{}
{}
}}
"""
_HELPER = """\
/* {} */
static inline {} {}({})
{{
    {};
}}
"""
