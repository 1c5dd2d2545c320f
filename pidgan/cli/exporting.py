"""What `pidgan export` writes beside a bundle: C files, repositories, showers."""

import tempfile
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli import options
from pidgan.cli.group import open_given, shows_progress
from pidgan.files.places import check_end, check_folder_name


def write_showers_of(
    model: Path,
    output: Path,
    dataset: Path | None,
    showers: int | None,
    seed: int,
    overwrite: bool,
) -> Path:
    """Write generated showers in the layout of the CaloChallenge."""
    from pidgan.application.shower_file import write_showers
    from pidgan.files.shower_file import ENDS

    if dataset is None:
        raise click.UsageError("--format hdf5-showers needs --dataset, for conditions")
    with options.usage_errors():
        check_end(output, ENDS)
    return write_showers(
        open_given(model),
        dataset,
        output,
        entries=showers,
        seed=seed,
        overwrite=overwrite,
        progress=shows_progress(),
    )


def write_collection(
    model: Path, output: Path, dataset: Path | None, **given: Any
) -> Path:
    """Write the C file of a collection."""
    from pidgan.bundle.c_collection import export_collection_c
    from pidgan.bundle.collection import Collection

    if dataset is not None:
        raise click.UsageError("--dataset is for a model, not for a collection")
    return export_collection_c(Collection.open(model), output, **given)


def write_triton(
    model: Path,
    output: Path,
    dataset: Path | None,
    **given: Any,
) -> list[Path]:
    """Write a bundle, a collection, or a model by way of a bundle, for Triton."""
    from pidgan.bundle.shipped import shipped_path
    from pidgan.bundle.triton import export_triton

    with options.usage_errors():
        check_folder_name(output)
    if not model.is_dir():
        if dataset is not None:
            raise click.UsageError("--dataset is for a model, not for a bundle")
        return export_triton(shipped_path(model, ".onnx"), output, **given)
    opened = open_given(model)
    report = None
    if dataset is not None:
        rows = pidgan.Dataset.open(dataset)
        report = pidgan.validate(opened, rows, progress=shows_progress())
    given["name"] = given["name"] or model.name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        pidgan.export_bundle(opened, path, report=report, progress=shows_progress())
        return export_triton(path, output, **given)


def write_c(generator: Any, output: Path, *, report: Any, **given: Any) -> Path:
    """Write a C file of a bundle, or of a model by way of one."""
    from pidgan.bundle.c_file import export_c

    if isinstance(generator, pidgan.Bundle):
        return export_c(generator, output, **given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        pidgan.export_bundle(generator, path, report=report, progress=False)
        return export_c(pidgan.open_bundle(path), output, **given)
