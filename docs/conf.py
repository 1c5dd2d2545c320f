"""Sphinx configuration: MyST pages, furo, and help texts taken from the commands."""

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "pidgan"
author = "the pidgan authors"
release = version = importlib.metadata.version("pidgan")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "plots"]
html_theme = "furo"
html_title = "pidgan"
html_show_copyright = False
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings write names in single backticks, and |x| for an absolute value.
default_role = "code"
autodoc_mock_imports = [
    "iminuit",
    "jinja2",
    "keras",
    "matplotlib",
    "mplhep",
    "onnx",
    "sklearn",
    "sweights",
    "tensorflow",
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 72
add_module_names = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

LITERAL = re.compile(r"(`[^`]*`)")
# What numpy's aliases expand to in a signature, and how readers know them.
NUMPY_TYPES = {
    r"_Buffer \| .*?_NestedSequence\[complex \| bytes \| str\]": "ArrayLike",
    r"numpy\.ndarray\[tuple\[[\w.~]+, \.\.\.\], "
    r"[\w.~]+\[[\w.~]+(\[[\w.~]+\])?\]\]": "ndarray",
}


def shorten_types(
    app: Any,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Write numpy's types in a signature by their names."""
    texts = [signature, returned]
    for pattern, short in NUMPY_TYPES.items():
        texts = [text and re.sub(pattern, short, text) for text in texts]
    return texts[0], texts[1]


def escape_bars(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep |x| in a docstring from being read as a substitution."""
    for i, line in enumerate(lines):
        parts = LITERAL.split(line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = "".join(parts)


def split_names(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Give each of `a, b: text` in a list of attributes a line of its own."""
    if "Attributes:" not in lines:
        return
    for i in reversed(range(len(lines))):
        found = re.fullmatch(r"(    )(\w+(?:, \w+)+)(: .*)", lines[i])
        if found:
            names = found[2].split(", ")
            lines[i : i + 1] = [found[1] + one + found[3] for one in names]


class Help(Directive):
    """`{pidgan-help} VERB ...`: what `pidgan VERB ... --help` prints."""

    required_arguments = 0
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        """Return the help text as a literal block."""
        text = help_text(self.arguments)
        return [nodes.literal_block(text, text, language="none")]


def help_text(words: list[str]) -> str:
    """Return the help text of `pidgan` followed by the words."""
    from pidgan.cli import cli

    width = {"terminal_width": 79, "max_content_width": 79}
    command: click.Command = cli
    settings = {**cli.context_settings, **width}
    context = click.Context(cli, info_name="pidgan", **settings)
    for word in words:
        is_group = isinstance(command, click.Group)
        found = command.get_command(context, word) if is_group else None
        if found is None:
            raise KeyError(f"pidgan has no verb {' '.join(words)!r}")
        command = found
        settings = {**command.context_settings, **width}
        context = click.Context(command, parent=context, info_name=word, **settings)
    return command.get_help(context)


def setup(app: Any) -> None:
    """Register the directive and the hook."""
    app.add_directive("pidgan-help", Help)
    app.connect("autodoc-process-docstring", split_names, priority=400)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-signature", shorten_types)
