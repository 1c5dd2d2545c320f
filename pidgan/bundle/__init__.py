"""The exported generator: one ONNX file, its card and its reference rows.

The training world writes bundles, the analysis world opens and evaluates them.
"""
