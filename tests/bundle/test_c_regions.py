"""Regions of a graph in C: what is empty is left out, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from test_c_file import bundle_of, draws, needs_compiler, node
from test_c_memory import Large

from pidgan.bundle import formulas as f
from pidgan.bundle.bundle import Bundle
from pidgan.bundle.c_file import c_source
from pidgan.bundle.c_regions import LANES, find_regions
from pidgan.training.export_graph import OnnxGraph

SIZE = 4 * LANES + 3


def network(graph: OnnxGraph, *, seed: int, share: float) -> "list[object]":
    """Cells by a network of each, where a number is above some; and the numbers."""
    rng = np.random.default_rng(seed)
    x, z = (f.turn(graph.value(*p)) for p in (("conditions", 3), ("noise", 4)))
    known = f.product(rng.normal(size=(SIZE, 4)), z)
    told = f.fold(f.product(rng.normal(size=(12, 3)), x), (1, 12))
    window = f.fold(f.pick(known, rng.integers(SIZE, size=3 * SIZE)), (SIZE, 3))
    own = f.fold(f.tanh(known + rng.normal(size=(SIZE, 1))), (SIZE, 1))
    v = f.product(rng.normal(size=(12, 4)), f.stack([own, window])) + told
    v = f.relu(v + rng.normal(size=(SIZE, 12, 1)))
    o = f.product(0.2 * rng.normal(size=(9, 12)), v) + rng.normal(size=(9, 1))
    p = f.exp(o - f.fold(f.largest(o), (SIZE, 1)))
    part = f.fold(f.product(np.ones((1, 9)), p), (SIZE,))
    sign = 1.0 - f.negative(f.fold(f.pick(o, [4]), (SIZE,)))
    made = f.minimum(part * sign, 7.0) / f.maximum(part, 0.5)
    return [f.where(f.greater(known, share), made, 0.25), known]


def generator(path: Path, *, share: float = 0.5) -> Bundle:
    graph = OnnxGraph()
    parts = network(graph, seed=1, share=share)
    parts += network(graph, seed=2, share=-share)
    name = f.turn(f.stack(parts)).name
    nodes = [*graph.nodes, node("Identity", [name], ["targets"])]
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.constants}
    return bundle_of(path, nodes, constants, len(parts) * SIZE)


@needs_compiler
@pytest.mark.parametrize("share", [-99.0, 0.5, 99.0])
def test_entries_that_are_needed_are_computed(tmp_path: Path, share: float) -> None:
    bundle = generator(tmp_path / "cells.onnx", share=share)
    regions = find_regions(bundle.graph.nodes, bundle.graph.values)
    assert [region.size for region in regions.values()] == [SIZE, SIZE]
    compiled = Large(bundle, tmp_path / "cells")
    x, z = draws(50)
    expected = bundle.generate(x, z)
    found = [compiled.rows(x, z), compiled.batch(x, z)]
    found += [compiled.in_memory(x, z, one=one) for one in (False, True)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    for y in found[1:]:
        np.testing.assert_array_equal(y, found[0])


def test_what_others_need_is_no_part_of_a_region(tmp_path: Path) -> None:
    bundle = generator(tmp_path / "cells.onnx")
    nodes, values = bundle.graph.nodes, bundle.graph.values
    for end, region in find_regions(nodes, values).items():
        inside = {*region.numbers, end}
        for number, one in enumerate(nodes):
            if number not in inside:
                assert not region.names & set(one.inputs)
        assert region.mask not in region.names
        # Products of all entries together are not those of one entry.
        for number in region.numbers:
            if nodes[number].operator == "MatMul":
                assert len(values[nodes[number].outputs[0]].shape) == 2


def test_a_graph_with_regions_has_no_blocks(tmp_path: Path) -> None:
    source = c_source(generator(tmp_path / "cells.onnx"), "cells")
    assert "evaluate_block" not in source
    assert "cells_batch_in(" in source
    assert "dense_4_12_lanes" in source
