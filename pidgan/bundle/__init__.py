"""The exported generator: its ONNX or C file, card, noise and reference rows.

The training world writes bundles, the analysis world opens and evaluates them.

- `agreement`: whether two evaluations of a generator agree.
- `bundle`: opening, verification and evaluation of a bundle.
- `bundle_file`: the file of a bundle: card, checksum and graph.
- `c_file`: a bundle as one C99 file, and `c_collection` a collection.
- `card`: the description of a generator, and the protocol of generators.
- `choice`: which of several bundles serves a row.
- `collecting`: makes the file of a collection from cards.
- `collection`: a file of bundles, and of the columns that choose among them.
- `devices`: where graphs are computed, on the processor or on a GPU.
- `formulas`: one language of formulas, for arrays and for graphs.
- `graph_values`: the arm of the formulas that appends operators to an ONNX graph.
- `opening`: generators that are given by their path.
- `noise`: standard normal noise keyed by integers.
- `reference`: reference rows, and cuts on generated targets.
- `session`: ONNX files that are run.
- `shipped`: a small bundle that comes with the package, and its map.
- `triton`: bundles as a model repository of NVIDIA Triton.
- `when`: values of columns that a bundle serves, as text.
"""

__all__ = [
    "agreement",
    "bundle",
    "bundle_file",
    "c_collection",
    "c_file",
    "card",
    "choice",
    "collecting",
    "collection",
    "devices",
    "formulas",
    "graph_values",
    "noise",
    "opening",
    "reference",
    "session",
    "shipped",
    "triton",
    "when",
]
