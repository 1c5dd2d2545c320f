"""Pictures of docs/gallery and of the README, from the files of a demo.

    pidgan demo -o demo && python docs/plots/gallery.py demo

The demo simulates and trains with fixed seeds. The pictures are written to
`docs/gallery`, that of the README to `docs/result.png`.
"""

import sys
from pathlib import Path

import numpy as np

import pidgan
from pidgan.efficiency.real_vs_generated import closure_table
from pidgan.report.drawn_maps import mean_over
from pidgan.report.plots import canvas, small_png
from pidgan.report.plots.curves import curve
from pidgan.report.plots.variables import Drawn, Panel, draw_panel

CUT = "RichDLLk > 0"
DOCS = Path(__file__).resolve().parents[1]
EDGES = {"P": (3e3, 1e4, 2e4, 4e4, 6e4, 1e5), "ETA": (1.8, 2.6, 3.3, 4.0, 5.0)}


def draw_gallery(demo: Path) -> None:
    """Write the pictures of the page."""
    kaons, pions = (demo / f"{name}.onnx" for name in ("kaon", "pion"))
    variables = ["RichDLLk", "RichDLLp"]
    dataset = pidgan.plot(demo / "kaon-dataset", variables=variables, cuts=CUT)
    both = pidgan.plot(kaons, pions, variables=variables, cuts=CUT, binning=EDGES)
    ntuple = demo / "analysis.root"
    covered = pidgan.plot(kaons, ntuple, track="Kplus", variables=["P"], cuts=CUT)
    made = pidgan.plot(demo / "kaon-map.json", cuts=CUT)
    table = closure_table(pidgan.open_bundle(kaons), cuts=CUT, binning=EDGES)
    planes = pidgan.plot(table)
    table = closure_table(
        pidgan.open_bundle(kaons), cuts=CUT, binning={"P": EDGES["P"]}
    )
    report = pidgan.validate(
        demo / "kaon-model", demo / "kaon-dataset", cuts=CUT, c2st_rows=2000
    )
    targets = ", ".join(variables)
    pictures = {
        "mass-fit": dataset["mass fit"],
        "weights": dataset["targets"],
        "generated": both["targets"],
        "efficiency": both[f"efficiency {CUT}"],
        "roc": both["ROC RichDLLk > x against pi+"],
        "plane": planes[f"plane {CUT}"],
        "coverage": covered["coverage"],
        "coverage-planes": covered["coverage in planes"],
        "map": made[f"efficiency {CUT}"],
        "uncertainty": made["uncertainty"],
        "table": pidgan.plot(table)[f"efficiency {CUT}"],
        "losses": pidgan.plot(demo / "kaon-model")["losses"],
        "target": report.figures[variables[0]],
        "in-bins": report.figures[f"{variables[0]} in bins of nTracks"],
        "correlation": report.figures[f"correlation of {targets}"],
        "two-targets": report.figures[f"plane of {targets}"],
    }
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        (folder / f"{name}.png").write_bytes(small_png(figure))


@canvas.style()
def draw_result(demo: Path) -> None:
    """Write the picture of the README: what is generated, and a quoted efficiency."""
    figure, (left, right) = canvas.single_panels(2, head=0.4)
    samples = []
    for name, colours in (
        ("kaon", (canvas.REAL, canvas.GENERATED)),
        ("pion", (canvas.FLOOR, canvas.ANALYSIS)),
    ):
        bundle = pidgan.open_bundle(demo / f"{name}.onnx")
        rows = bundle.reference()
        made = bundle.generate(rows, seed=1)
        whose = canvas.species_text(bundle.card.species)
        w = rows["weight"].to_numpy()
        for frame, text, colour, kind in (
            (rows, "real", colours[0], "points"),
            (made, "generated", colours[1], "line"),
        ):
            samples.append(
                Drawn(
                    values=frame["RichDLLk"].to_numpy(),
                    weights=w,
                    label=f"{text} {whose}",
                    colour=colour,
                    kind=kind,
                )
            )
    panel = Panel(
        name="RichDLLk",
        samples=samples,
        sentinels=(-999.0, -1000.0),
        edges=np.arange(-100.0, 81.0, 2.0),
    )
    draw_panel(panel, left, unity=True)
    left.set_title("", loc="left")
    for name, hollow in (("kaon", False), ("pion", True)):
        found = pidgan.EfficiencyMap.open(demo / f"{name}-map.json")
        mean = mean_over(found, ["P"])
        edges = np.array(mean.edges["P"])[:-1] * 1e-3
        v = mean.kinds["corrected"].of(found.cut_index(CUT), slice(None, -1))
        whose = canvas.species_text(mean.species)
        label = f"corrected {whose}"
        shown = curve(v.value, (v.low, v.high), label, canvas.CORRECTED, hollow=hollow)
        right.set_xscale("log")
        canvas.draw_series(right, edges, shown)
    right.set_xlim(edges[0], edges[-1])
    canvas.number_log_axis(right.xaxis)
    right.set_ylim(0, 1.05)
    right.set_ylabel(f"Efficiency, misID of {CUT}")
    canvas.label_axis(right, "P", "GeV")
    canvas.draw_head(figure, "", [left, right])
    (DOCS / "result.png").write_bytes(small_png(figure))


if __name__ == "__main__":
    draw_gallery(Path(sys.argv[1]))
    draw_result(Path(sys.argv[1]))
