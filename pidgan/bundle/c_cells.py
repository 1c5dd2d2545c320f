"""What a C file says of the cells of a shower: their layers and positions."""

import numpy as np

from pidgan.bundle.c_writer import number_text, numbers_text
from pidgan.bundle.card import Card

_TEXT = """\
/* Names of the conditions, in their order. */
extern const char *const {name}_condition_names[];
const char *const {name}_condition_names[] = {{{conditions}}};

/* The layer of each cell, counted from 0 through all views, and its middle x, y, z in
 * mm; z is NaN where it is not known. */
extern const int {name}_cell_layer[];
extern const float {name}_cell_position[][3];
const int {name}_cell_layer[] = {layers};
const float {name}_cell_position[][3] = {{
{positions}
}};
"""


def cells_text(card: Card, name: str) -> str:
    """Return the tables of the cells of a card, "" if it has none."""
    cells = card.sample.cells
    if cells is None:
        return ""
    centres = [
        ", ".join(map(number_text, centre))
        for centre in cells.layout.centres.astype(np.float32)
    ]
    return _TEXT.format(
        name=name,
        conditions=", ".join(f'"{text}"' for text in card.condition_names),
        layers=numbers_text(cells.layout.layer_index),
        positions=",\n".join(f"    {{{centre}}}" for centre in centres),
    )
