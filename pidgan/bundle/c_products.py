"""Products of rows with constant matrices in C99, several columns at a time."""

import numpy as np

from pidgan.bundle.c_writer import Step

TILE = 8
"""Number of columns of a product at a time. Their sums stay in registers and hide the
latency of an addition."""


def write_product(step: Step) -> None:
    """Write the product of rows with a constant matrix, with or without a bias."""
    call = step.call
    source = 0
    weights = call.value(1).constant
    if weights is None:
        # The matrix comes first if rows are on the last axis.
        source, weights = 1, call.value(0).constant
        weights = None if weights is None else weights.T
    assert weights is not None
    inputs, outputs = weights.shape
    bias = np.zeros(outputs, dtype=np.float32)
    given = call.numbers(2)
    if given is not None:
        bias += given.reshape(-1)
    w = step.writer.constants.add(np.ascontiguousarray(weights))
    b = step.writer.constants.add(bias)
    rows = step.writer.rows
    function = f"dense_{inputs}_{outputs}_{'row' if rows == 1 else 'block'}"
    write = _dense_row if rows == 1 else _dense_block
    step.writer.functions[function] = write(function, inputs, outputs)
    for i in range(call.value(source).size // inputs):
        y, x = step.target(), step.place(source)
        if i > 0:
            y += f" + {i * outputs * rows}"
            x += f" + {i * inputs * rows}"
        step.writer.lines.append(f"    {function}({y}, {x}, {w}, {b});")


_DENSE_HEAD = """\
static void {}(float *restrict y, const float *restrict x,
               const float *restrict w, const float *restrict b)
{{"""


def _dense_block(name: str, inputs: int, outputs: int) -> str:
    """Return y = w x + b for a block; constant sizes let compilers make vectors."""
    rest = outputs % TILE
    lines = [_DENSE_HEAD.format(name)]
    if outputs >= TILE:
        lines += [
            f"    for (size_t j = 0; j < {outputs - rest}; j += {TILE})",
            *_tile(TILE, "j", inputs, outputs, indent=" " * 8),
        ]
    if rest:
        lines += _tile(rest, str(outputs - rest), inputs, outputs, indent=" " * 4)
    return "\n".join([*lines, "}\n"])


def _tile(width: int, j: str, inputs: int, outputs: int, *, indent: str) -> list[str]:
    """Return the loop over rows that computes columns j to j + width - 1."""
    sums = list(enumerate(f"s{n}" for n in range(width)))
    lines = [
        "for (size_t r = 0; r < ROWS; ++r) {",
        *(f"    float {s} = b[{j} + {n}];" for n, s in sums),
        f"    for (size_t k = 0; k < {inputs}; ++k) {{",
        f"        const float *u = w + k * {outputs} + {j};",
        "        const float v = x[k * ROWS + r];",
        *(f"        {s} = MULTIPLY_ADD(v, u[{n}], {s});" for n, s in sums),
        "    }",
        *(f"    y[({j} + {n}) * ROWS + r] = {s};" for n, s in sums),
        "}",
    ]
    return [indent + line for line in lines]


def _dense_row(name: str, inputs: int, outputs: int) -> str:
    """Return the function y = w x + b for one row, with the same sums as a block."""
    return f"""\
{_DENSE_HEAD.format(name)}
    for (size_t j = 0; j < {outputs}; ++j)
        y[j] = b[j];
    for (size_t k = 0; k < {inputs}; ++k)
        for (size_t j = 0; j < {outputs}; ++j)
            y[j] = MULTIPLY_ADD(x[k], w[k * {outputs} + j], y[j]);
}}
"""
