"""Bundles as a model repository of NVIDIA Triton, a server of networks.

Each model is a folder with `config.pbtxt` and a folder for each version, which holds
the bundle as `model.onnx`. Triton runs the graph by onnxruntime and does not read the
card. Noise is an input of the graph, so that a client sends it; `pidgan.bundle.noise`
makes the numbers of `apply`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pidgan.arguments import brief, checked
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.collection import SUFFIX, Collection
from pidgan.errors import BundleError, NtupleError, one_line
from pidgan.files.places import check_output
from pidgan.files.writing import alone, refuse_existing, writing_file

CONFIG, MODEL = "config.pbtxt", "model.onnx"
"""Names of the files of a model in a repository."""

PLATFORM = "onnxruntime_onnx"

BLOCKS = 32
"""Most blocks of rows in a batch: a block is what the graph computes at a time here."""

DELAY_MICROSECONDS = 100
"""Longest time in which a request waits for others to share its batch."""

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+~-]*")
"""Names of models that every server takes."""


@checked
def export_triton(
    generators: Bundle | Collection | str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    model_version: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write a bundle, or all of a collection, into a model repository of Triton.

    Of a collection, each bundle becomes a model; the client chooses among them.

    Args:
        generators: Bundle or collection, or its path.
        repository: Folder of the repository, which may hold other models.
        name: Name of the model; the default is the stem of the bundle's file.
        model_version: Number of the version; other versions of the model stay.
        overwrite: Whether this version is replaced if it is there.

    Returns:
        Paths of the files that were written.

    Raises:
        BundleError: The bundle is refused, or its inputs and outputs are not those of
            the versions that are there.
        NtupleError: A file exists, or cannot be written.

    Example:
        >>> export_triton("kaon.onnx", "models")                    # doctest: +SKIP
        [PosixPath('models/kaon/config.pbtxt'), PosixPath('models/kaon/1/model.onnx')]
    """
    check_output(repository)
    place = Path(repository)
    models = _models(generators, name)
    for own, _ in models:
        if not MODEL_NAME.fullmatch(own):
            raise BundleError(
                f"{brief(own)} is no name of a model, expected letters, digits and "
                "any of _.+~-; --name takes another one"
            )
        refuse_existing(place / own / str(model_version) / MODEL, overwrite=overwrite)
    configs = {own: triton_config(bundle, own) for own, bundle in models}
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NtupleError(f"{place}: {one_line(error)}") from error
    with alone(place):  # Another export would mix its configuration with this model.
        return _write(models, configs, place, str(model_version), overwrite=overwrite)


def _write(
    models: Sequence[tuple[str, Bundle]],
    configs: Mapping[str, str],
    place: Path,
    version: str,
    *,
    overwrite: bool,
) -> list[Path]:
    """Write models and their configurations to a repository that is this one's own."""
    written = []
    for own, bundle in models:
        refuse_existing(place / own / version / MODEL, overwrite=overwrite)
        config = place / own / CONFIG
        text = configs[own]
        is_there = config.exists()
        if is_there and config.read_text(encoding="utf-8") != text and not overwrite:
            raise BundleError(
                f"{config} is not that of {bundle.path}: versions of a model have the "
                "same inputs and outputs; take another --name, or --overwrite"
            )
    for own, bundle in models:
        folder = place / own / version
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data = bundle.path.read_bytes()
        except OSError as error:
            raise NtupleError(f"{folder}: {one_line(error)}") from error
        # The configuration first: Triton looks for versions after it.
        for path, content in (
            (place / own / CONFIG, configs[own].encode()),
            (folder / MODEL, data),
        ):
            is_config = path.name == CONFIG
            with writing_file(path, overwrite=overwrite or is_config) as new:
                new.write_bytes(content)
            written.append(path)
    return written


def triton_config(bundle: Bundle, name: str) -> str:
    """Return the configuration of a model, in the text format of protocol buffers."""
    rows = bundle.block_rows
    ports = [_port(port, width) for port, width in bundle.card.ports.items()]
    return "\n".join(
        [
            f'name: "{name}"',
            f'platform: "{PLATFORM}"',
            'backend: "onnxruntime"',
            f"max_batch_size: {BLOCKS * rows}",
            f"input [{','.join(ports)}\n]",
            f"output [{_port('targets', len(bundle.card.targets))}\n]",
            "version_policy { all { } }",
            "dynamic_batching {",
            f"  preferred_batch_size: [ {rows} ]",
            f"  max_queue_delay_microseconds: {DELAY_MICROSECONDS}",
            "}",
            "",
        ]
    )


def _port(name: str, width: int) -> str:
    return f'\n  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {width} ] }}'


def _models(
    source: Bundle | Collection | str | Path, name: str | None
) -> Sequence[tuple[str, Bundle]]:
    """Return the bundles of a source by the names of their models."""
    if isinstance(source, str | Path) and Path(source).suffix.lower() == SUFFIX:
        source = Collection.open(source)
    if not isinstance(source, Collection):
        bundle = open_bundle(source)
        return [(name or bundle.path.stem, bundle)]
    if name is not None:
        raise BundleError(
            "name is for one bundle; those of a collection have their own"
        )
    return list(zip(member_names(source), source.open_bundles(), strict=True))


def member_names(collection: Collection) -> list[str]:
    """Return names for the bundles of a collection, by their files.

    Folders are part of the names where two files have the same one.
    """
    files = [Path(member.file).with_suffix("") for member in collection.members]
    names = [file.name for file in files]
    if len(set(names)) < len(names):
        parts = [[p for p in file.parts if MODEL_NAME.fullmatch(p)] for file in files]
        names = ["-".join(own) for own in parts]
    return names
