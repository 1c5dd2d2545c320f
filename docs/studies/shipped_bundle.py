"""Make the small bundle that ships, `demo-kaon`, from the files of `pidgan demo`.

    python docs/studies/shipped_bundle.py pidgan-demo -o pidgan/bundle/shipped_files

The generator of kaons is exported again with fewer reference rows, so that everything
together is below a megabyte. Its efficiency map, in few bins, is measured with all of
the reference rows, of which none was in the training. The card says where all of this
comes from.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from pidgan.bundle.bundle import open_bundle
from pidgan.efficiency.systematics import run_systematics
from pidgan.training.export import export_bundle
from pidgan.training.model import Model, open_model

NAME = "demo-kaon"
ROWS = 7_000
CUTS = ("RichDLLk > 0", "RichDLLk > 5")
BINNING = {
    "P": [3e3, 10e3, 20e3, 35e3, 60e3, 100e3, 200e3],
    "ETA": [1.5, 2.8, 3.6, 5.5],
    "nTracks": [0, 150, 300, 1000],
}
MOST_BYTES = 1_000_000


def describe(model: Model, rows: int) -> Model:
    """Return a model whose card says where it comes from, without paths of files."""
    card = model.card
    source = (
        f"pidgan demo: {card.dataset['rows_read']} simulated tracks, {card.steps} "
        f"steps; {rows} of {len(model.held_out)} reference rows are kept here. For "
        "first steps, not for physics"
    )
    files = [
        one
        | {
            "source": Path(one["source"]).name
            if "/" not in one["source"]
            else "/".join(one["source"].rsplit("/", 2)[-2:])
        }
        for one in card.dataset["files"]
    ]
    update = {
        "sample": card.sample.model_copy(update={"source": source}),
        "dataset": card.dataset | {"files": files},
    }
    return replace(model, card=card.model_copy(update=update))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    model = open_model(given.demo / "kaon-model")
    everything = model.reference()
    chosen = np.random.default_rng(1).choice(len(everything), ROWS, replace=False)
    kept = everything.iloc[np.sort(chosen)].reset_index(drop=True)
    kept = kept.astype(dict.fromkeys(kept.columns, np.float32))

    class Judged:
        """The figures of the validation, which stand on the card of the demo."""

        @staticmethod
        def headline() -> dict[str, object]:
            return open_bundle(given.demo / "kaon.onnx").card.validation

    path = given.output / f"{NAME}.onnx"
    export_bundle(
        describe(model, ROWS), path, report=Judged, reference=kept, overwrite=True
    )
    found = run_systematics(
        open_bundle(path), everything, cuts=CUTS, binning=BINNING, seed=1
    )
    found.save(given.output / f"{NAME}.json", overwrite=True)
    files = sorted(given.output.iterdir())
    for file in files:
        print(f"{file.name:30} {file.stat().st_size:8}")
    total = sum(file.stat().st_size for file in files)
    print(f"{'':30} {total:8} of {MOST_BYTES}")
    assert total <= MOST_BYTES


if __name__ == "__main__":
    main()
