"""Responses of pads by crossing angle: figures, chi2 of the moments, amplitudes.

    python docs/studies/pads.py mpd_tpc_v2.npz [--bundle pads.onnx] -o FOLDER

The script draws the published responses of arXiv:2012.04595. If it is given the bundle
of docs/how-to/simulation/time-projection-chamber.md, it also draws responses generated
for the held-out rows. It writes `pads.png` and `pads_profiles.png`, and prints the
table of that page.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pidgan.bundle.bundle import open_bundle
from pidgan.report.pads import (
    MOMENTS,
    N_BINS,
    chi2_floor,
    image_moments,
    moments_chi2,
    profile,
)
from pidgan.report.plots import png
from pidgan.report.plots.pads import plot_pads, plot_profiles

SHAPE = (8, 16)
EDGES = (0, 3, 6, 9, 12, 15)
"""Edges of bins of the crossing angle, in degrees."""


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.bundle is None:
        with np.load(arguments.data) as data:
            real, angle = data["images_adc"], data["crossing_angle_deg"]
        figure = plot_pads(real, angle, edges=EDGES)
        (arguments.output / "pads.png").write_bytes(png(figure))
        return
    real, generated, angle = _responses(arguments.bundle)
    figure = plot_pads(real, angle, edges=EDGES, generated=generated)
    (arguments.output / "pads.png").write_bytes(png(figure))
    edges = np.linspace(EDGES[0], EDGES[-1], N_BINS + 1)
    profiles = [
        {
            name: profile(angle, image_moments(images)[:, k], edges)
            for k, name in enumerate(MOMENTS)
        }
        for images in (real, generated)
    ]
    (arguments.output / "pads_profiles.png").write_bytes(png(plot_profiles(*profiles)))
    x = angle[:, None]
    found = moments_chi2(real, generated, x)
    floor = chi2_floor(real, x, splits=8)
    print(f"chi2 {found.value:.0f} of {found.terms} terms, floor {floor.value:.0f}")
    for name, images in (("real", real), ("generated", generated)):
        sums = images.sum(axis=(1, 2))
        shares = [
            np.mean(v)
            for v in (images < 1, (images >= 1) & (images < 4.3), images > 730)
        ]
        print(
            name,
            *(f"{100 * share:.2f} %" for share in shares),
            f"sum {sums.mean():.0f} ± {sums.std() / np.sqrt(len(sums)):.0f}",
        )


def _responses(path):
    """Return held-out responses, generated ones and crossing angles in degrees."""
    bundle = open_bundle(path)
    frame = pd.read_parquet(path.with_name(f"{path.stem}.reference.parquet"))
    x = frame[list(bundle.card.condition_names)].to_numpy(np.float32)
    columns = [name for name in frame.columns if name.startswith("pads")]
    noise = np.random.default_rng(1).standard_normal((len(x), bundle.card.n_noise))
    generated = bundle.generate(x, noise.astype(np.float32))
    real = frame[columns].to_numpy()
    angle = np.degrees(x[:, 0])
    return real.reshape(-1, *SHAPE), generated.reshape(-1, *SHAPE), angle


if __name__ == "__main__":
    main()
