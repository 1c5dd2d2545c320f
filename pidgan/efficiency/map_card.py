"""What an efficiency map holds, as `pidgan inspect` shows it."""

from typing import Any

from pidgan.efficiency.binning import count_bins
from pidgan.efficiency.efficiency_map import EfficiencyMap


def map_card(found: EfficiencyMap) -> dict[str, Any]:
    """Return what a map is for, its denominator, bins and mean efficiencies."""
    names = ("species", "detector", "sample", "bundle_sha256", "seed")
    return {
        **{name: found.metadata.get(name) for name in names},
        "where": found.where or None,
        "cuts": list(found.cuts),
        "binning": {name: list(edges) for name, edges in found.binning.items()},
        "variations": list(found.variations),
        "few_events": list(found.flagged),
        "efficiencies": found.averages,
    }


def map_card_text(found: EfficiencyMap) -> str:
    """Return the same in lines, with the efficiencies as a table."""
    card = map_card(found)
    lines = {
        "species": card["species"],
        "detector": card["detector"],
        "sample": card["sample"],
        "bundle": card["bundle_sha256"],
        "among": card["where"],
        "bins": f"{count_bins(found.binning)}",
        **{
            f"bins in {name}": ", ".join(f"{edge:g}" for edge in edges)
            for name, edges in found.binning.items()
        },
        "variations": ", ".join(card["variations"]) or "none",
        "few rows": ", ".join(card["few_events"]),
    }
    width = max(map(len, lines)) + 2
    shown = [f"{name:{width}}{value}" for name, value in lines.items() if value]
    table = found.text() or "\n".join(f"{'cut':{width}}{cut}" for cut in found.cuts)
    return "\n".join([*shown, table])
