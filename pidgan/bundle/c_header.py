"""The header of a C file: what it gives to others, for C and C++."""

import re

_DECLARATIONS = re.compile(
    r"^(?:typedef|extern|void|int|float \*)(?:[^;{}=]|(?<=\[)\])*;", re.MULTILINE
)

_HEADER = """\
/* Declarations of {name}.c, whose comments say what they are. */
#ifndef {guard}
#define {guard}

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

{declarations}

#ifdef __cplusplus
}}
#endif

#endif
"""


def header_text(name: str, source: str) -> str:
    """Return the header of a C file: its declarations, by name of the generator."""
    # "restrict" is no word of C++, and makes no difference to a caller.
    found = [text.replace("restrict ", "") for text in _DECLARATIONS.findall(source)]
    return _HEADER.format(
        name=name, guard=f"PIDGAN_{name.upper()}_H", declarations="\n".join(found)
    )
