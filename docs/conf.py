"""Sphinx configuration: Markdown pages, furo, formulas as MathML.

Nothing on the built pages comes from a network. The parts of the reference that follow
from the code are plain Markdown, written by `docs/generate.py`.
"""

import html
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "pidgan"
author = "the pidgan authors"
release = version = importlib.metadata.version("pidgan")
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build", "plots"]
html_theme = "furo"
html_title = "pidgan"
html_show_copyright = False
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = ">>> "


def inline_formula(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(convert(html.unescape(node.astext())))
    raise nodes.SkipNode


def block_formula(self: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    formula = convert(html.unescape(node.astext()), display="block")
    self.body.append(f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
