"""The documentation follows the code: commands, options, names, links and examples."""

import difflib
import hashlib
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest

import pidgan
from pidgan.application.one_track import STATUS_BITS
from pidgan.bundle.card import Card, CardVariable
from pidgan.bundle.collecting import collect
from pidgan.bundle.collection import Content, Member
from pidgan.campaign.definition import Campaign, Change, Head, Options, Run
from pidgan.campaign.grid import planned_bundles
from pidgan.cli import VERBS, cli
from pidgan.efficiency.efficiency_map import _ARRAYS
from pidgan.files.tables import write_table, write_trees
from pidgan.sample.cells import Cells, Symmetry
from pidgan.sample.clusters import Clusters
from pidgan.sample.cuts import parse_cut
from pidgan.sample.definition import Discriminant, Sample
from pidgan.sample.loading import list_samples, load_sample
from pidgan.sample.pidcalib import list_pidcalib_samples
from pidgan.sample.variables import DERIVATIONS, Variable
from pidgan.sample.weight_file import WeightFile
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis
from pidgan.training.families.settings_file import read_settings_file

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\{?[\w-]+\}?)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    not DOCS.is_dir(), reason="the documentation is not part of a wheel"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [body for kind, body in found if kind == language]


def commands_in(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    pieces = [piece.strip() for line in lines for piece in line.split("&&")]
    return [piece for piece in pieces if piece.startswith("pidgan ")]


COMMANDS = [(name_of(page), text) for page in PAGES for text in commands_in(page)]
COMMANDS += [
    ("--help", line.removeprefix("Example: "))
    for command in [*cli.commands.values(), *cli.commands["simulate"].commands.values()]
    for line in [str(command.epilog)]
]


def parse(text: str) -> click.Context:
    """Parse a command line with click, without running it."""
    words = shlex.split(text, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="pidgan", **cli.context_settings)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name!r} in {text!r}")
        command = found
        if not isinstance(command, click.Group):
            context = command.make_context(name, words, parent=context)
    return context


@pytest.mark.parametrize(("page", "text"), COMMANDS)
def test_commands_parse(page: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The files are not there.
    monkeypatch.setattr("pidgan.cli.options.check_kind", lambda *_, **__: None)
    context = parse(text)
    cuts = context.params.get("cuts") or ()
    for cut in cuts:
        parse_cut(cut)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(click.ClickException):
        parse("pidgan train kaon --epochs 3 -o model")
    with pytest.raises(click.ClickException):
        parse("pidgan retrain kaon")


def all_commands() -> dict[str, click.Command]:
    """Return every command by its words, groups included."""
    found: dict[str, click.Command] = {"": cli}
    for verb, command in cli.commands.items():
        found[verb] = command
        if isinstance(command, click.Group):
            found |= {f"{verb} {name}": c for name, c in command.commands.items()}
    return found


def test_every_help_text_is_in_the_reference() -> None:
    text = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    shown = re.findall(r"^<!-- help: ?(.*?) ?-->$", text, re.MULTILINE)
    assert shown == list(dict.fromkeys(shown))
    assert set(shown) == set(all_commands())


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """What `docs/generate.py` writes, by path below docs/."""
    pytest.importorskip("tensorflow")
    path = DOCS / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, str] = module.generated()
    return found


def test_generated_pages_are_up_to_date(generated: dict[str, str]) -> None:
    old = {p: t for p, t in generated.items() if not _holds(DOCS / p, t)}
    assert not old, f"run: python docs/generate.py\n{_differences(old)}"
    pages = {f"reference/api/{p.name}" for p in (DOCS / "reference/api").glob("*.md")}
    assert pages == {path for path in generated if path.startswith("reference/api/")}


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _differences(pages: dict[str, str]) -> str:
    files = {page: DOCS / page for page in pages}
    now = {p: f.read_text("utf-8") if f.is_file() else "" for p, f in files.items()}
    lines = [
        line
        for page, text in pages.items()
        for line in difflib.unified_diff(
            now[page].splitlines(), text.splitlines(), page, "generated", lineterm=""
        )
    ]
    return "\n".join(lines[:40])


# Names with which a user begins.
FIRST_NAMES = {
    *("Bundle", "Dataset", "EfficiencyMap", "PidganError", "Report", "Sample"),
    *("load_sample", "compute_sweights", "build_dataset", "train", "validate"),
    *("efficiency_table", "run_systematics", "pid_efficiency", "export_bundle"),
    *("open_bundle", "apply", "plot"),
}


def test_every_public_function_has_a_page_with_an_example(
    generated: dict[str, str],
) -> None:
    # Others are on the page of the function that they belong to.
    own = {n: f"reference/api/{n}.md" for n in pidgan.__all__}
    own = {name: path for name, path in own.items() if path in generated}
    assert set(own) >= FIRST_NAMES
    for name, path in own.items():
        assert f"# `{name}`" in generated[path]
        if name in FIRST_NAMES and name.islower():
            assert "**Example**" in generated[path], name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_readable_without_sphinx(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # A list of pages at the end of the index is for the navigation alone.
    directives = set(re.findall(r"^```\{([\w-]+)\}", text, re.MULTILINE))
    assert directives <= ({"toctree"} if page.name == "index.md" else set())
    assert not [target for title, target in LINK.findall(text) if not title]


def test_built_pages_load_nothing_from_a_network(tmp_path: Path) -> None:
    for needed in ("sphinx", "furo", "latex2mathml", "sphinx_copybutton"):
        pytest.importorskip(needed)
    words = ("-m", "sphinx", "-q", "-W", "-b", "html", DOCS, tmp_path / "html")
    subprocess.run([sys.executable, *map(str, words)], check=True)
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 60
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]*src=.https?:|<link[^>]*href=.https?:"
    )
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page
    for style in (tmp_path / "html").rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", style.read_text()), style
    assert "<math" in (tmp_path / "html/explanation/weights.html").read_text()


@pytest.mark.parametrize("words", all_commands())
def test_help_works_and_describes_every_option(words: str) -> None:
    context = click.Context(cli, info_name="pidgan", **cli.context_settings)
    command = all_commands()[words]
    text = command.get_help(click.Context(command, parent=context, info_name=words))
    if words:
        assert "Example: pidgan" in text
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                assert option in text


def sections(page: str, level: str) -> dict[str, str]:
    """Return the text below each heading of a level."""
    parts = re.split(rf"^{level} (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("verb", "function"), VERBS.items())
def test_verbs_and_functions_name_each_other(verb: str, function: str) -> None:
    text = sections("reference/cli.md", "##")[f"pidgan {verb}"]
    assert re.findall(r"`(pidgan\.[\w.]+)`", text)[0] == function
    short = function.rpartition(".")[2]
    pages = sections("reference/api.md", "###")
    assert f"(cli.md#pidgan-{verb})" in pages[f"`{short}`"].split("```")[0]


def test_verbs_of_the_reference_exist() -> None:
    found = [h for h in sections("reference/cli.md", "##") if h.startswith("pidgan ")]
    assert found == [f"pidgan {v}" for v in VERBS]


# A name of the reference that is none of the package: what else has the same name.
TWICE = {"Clusters": "a table of a definition, and a family", "Frame": "rows in memory"}


def test_public_names_are_those_of_the_reference() -> None:
    text = (DOCS / "reference/api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.M))
    public = {f"pidgan.{home}.{name}" for name, home in pidgan._HOMES.items()}
    assert {p for p in listed if p.rpartition(".")[2] not in TWICE} == public


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("sample-definition", [f.alias or n for n, f in Sample.model_fields.items()]),
        ("sample-definition", Variable.model_fields),
        ("sample-definition", Discriminant.model_fields),
        ("sample-definition", WeightFile.model_fields),
        ("sample-definition", Cells.model_fields),
        ("sample-definition", Symmetry.model_fields),
        ("sample-definition", Clusters.model_fields),
        ("sample-definition", DERIVATIONS),
        ("campaign", [f.alias or n for n, f in Head.model_fields.items()]),
        ("campaign", [f.alias or n for n, f in Options.model_fields.items()]),
        ("campaign", Change.model_fields),
        ("campaign", Run.model_fields),
        ("bundle", Card.model_fields),
        ("bundle", CardVariable.model_fields),
        ("bundle", STATUS_BITS),
        ("errors", [c.__name__ for c in pidgan.PidganError.__subclasses__()]),
        ("efficiency-map", _ARRAYS),
    ],
)
def test_fields_of_formats_are_in_the_reference(page: str, names: Any) -> None:
    text = (DOCS / f"reference/{page}.md").read_text(encoding="utf-8")
    for name in names:
        assert f"`{name}`" in text, name


def test_definitions_that_ship_are_in_the_reference() -> None:
    text = (DOCS / "reference/sample-definition.md").read_text(encoding="utf-8")
    for name in list_samples():
        assert f"`{name}`" in text or name.startswith("sim_"), name


def test_status_bits() -> None:
    text = (DOCS / "reference/bundle.md").read_text(encoding="utf-8")
    for name, bit in STATUS_BITS.items():
        assert f"| {bit} | `{name}` |" in text


def test_figure_of_the_simulation_is_within_its_bands() -> None:
    folder = DOCS / "explanation"
    assert (folder / "simulation_tuning.png").stat().st_size < 150_000
    lines = (folder / "simulation_tuning.inc").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    for tracks, quantity, real_text, found in rows:
        real, simulated = float(real_text), float(found.split()[0])
        if "epsilon" in quantity:
            assert abs(simulated - real) < 3, (tracks, quantity)
        else:
            assert 1 / 1.5 < simulated / real < 1.5, (tracks, quantity)


def test_readme_begins_with_the_commands() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    for command in (
        'pip install ".[train]" && pidgan demo',
        'pip install ".[train,test]" && pytest',
    ):
        assert command in head


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_recommends_the_other_package(page: Path) -> None:
    assert "pip install pidgan" not in page.read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for _, target in LINK.findall(text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)}: {target}"
        if fragment:
            headings = HEADING.findall(file.read_text(encoding="utf-8"))
            assert fragment in map(anchor, headings), f"{name_of(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_sample_definitions_load(page: Path, tmp_path: Path) -> None:
    if page.name == "run-3-samples.md":
        _write_run3(tmp_path)
        for found in list_pidcalib_samples(tmp_path / "samples.json").values():
            found.save(tmp_path / f"{found.name}.toml")
    for text in blocks(page, "toml"):
        name = text.splitlines()[0].removeprefix("# ").strip()
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        if path.stem == "campaign":
            assert planned_bundles(Campaign.open(path))
        elif "[settings]" in text:
            assert read_settings_file(path).settings
        else:
            assert load_sample(path).name == path.stem


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, name_of(page), "exec")


RUNNABLE = [
    page
    for page in PAGES
    if any(text.startswith("# runnable") for text in blocks(page, "python"))
]


def _card() -> Card:
    """A card like that of a trained generator of `sim_dstar_k`."""
    sample = load_sample("sim_dstar_k")
    ranges = {"P": (3e3, 200e3), "ETA": (1.5, 5.5), "nTracks": (1.0, 999.0)}
    variables = {
        kind: tuple(
            CardVariable(
                name=v.name,
                unit=v.package_unit,
                range=ranges.get(v.name, v.range),
                sentinels=v.sentinels,
                patterns=v.patterns,
            )
            for v in getattr(sample, kind)
        )
        for kind in ("conditions", "targets")
    }
    return Card(
        detector=sample.detector,
        species=sample.species,
        n_noise=len(sample.targets),
        sample=sample,
        family="toy",
        seed=1,
        steps=0,
        **variables,
    )


def _write_bundle(path: Path, card: Card) -> None:
    """Write a linear generator, y = x A + z B + c, as a bundle."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from pidgan.bundle.bundle_file import CARD_KEY, seal

    n_x, n_y = len(card.conditions), len(card.targets)
    slope = np.zeros((n_x, n_y), dtype=np.float32)
    slope[0], slope[2] = -2e-4, -0.01
    arrays = {
        "slope": slope,
        "start": np.full(n_y, 12, dtype=np.float32),
        "mixing": (6 * np.eye(n_y)).astype(np.float32),
    }
    rng = np.random.default_rng(1)
    low, high = np.array([v.range for v in card.conditions]).T
    x = rng.uniform(low, high, (64, n_x)).astype(np.float32)
    z = rng.standard_normal((64, n_y)).astype(np.float32)
    y = x @ arrays["slope"] + arrays["start"] + z @ arrays["mixing"]
    test = {"conditions": x.tolist(), "noise": z.tolist(), "targets": y.tolist()}
    ports = {"conditions": n_x, "noise": n_y, "targets": n_y}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in ports.items()
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["conditions", "slope", "start"], ["centre"]),
            helper.make_node("MatMul", ["noise", "mixing"], ["spread"]),
            helper.make_node("Add", ["centre", "spread"], ["targets"]),
        ],
        "toy",
        [values["conditions"], values["noise"]],
        [values["targets"]],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    text = card.model_copy(update={"self_test": test}).to_json()
    onnx.helper.set_model_props(model, {CARD_KEY: text})
    path.write_bytes(seal(model.SerializeToString()))


def _write_run3(folder: Path) -> None:
    """Write muons as PIDCalib2 lists them, and an analysis ntuple with their cuts."""
    rng, n = np.random.default_rng(3), 3000
    prefix, track = "muprobe", "muplus"
    triggers = ("Hlt1TrackMVADecision_TIS", "Hlt1TwoTrackMVADecision_TIS")
    fired = " | ".join(f"({prefix}_{name} ==1)" for name in triggers)
    order = ["RUNNUMBER", "Jpsi_M", f"{prefix}_PT"]
    key = {
        "calib_files": {"analysis": "run3_pidcalib_tupling", "polarity": "magup"},
        "cuts": [
            f"( ((mutag_MUONLLBG) <0) & (({prefix}_INMUON) ==1) & ((( {fired} )) ==1)) "
            f"& (((Jpsi_M) >2930) & ((Jpsi_M) <3270)) & (1==1)"
        ],
        "sweight_dir": "root://host//sweights/",
        "tuple_names": {"Mu": ["JpsiToMuMupTagged_Detached"]},
        "probe_prefix": prefix,
        "ordering_variables": order,
    }
    (folder / "samples.json").write_text(json.dumps({"2025_c4_v0-MagUp-Mu": key}))
    p = np.exp(rng.uniform(np.log(5e3), np.log(9e4), n))
    eta = rng.uniform(2, 4.8, n)
    own = {
        "P": p,
        "PT": p / np.cosh(eta),
        "ETA": eta,
        "CHARGE": rng.choice([-1, 1], n).astype(np.int32),
        "INMUON": rng.random(n) < 0.9,
        **{name: np.ones(n, bool) for name in triggers},
    }
    event = {"nLongTracks": rng.integers(10, 250, n).astype(np.int32)}
    likelihoods = {
        f"{prefix}_PID_{h}": rng.normal(mean, 4, n).astype(np.float32)
        for h, mean in (("K", -10), ("P", -15), ("MU", 5), ("E", -8))
    }
    tuples = {
        **{f"{prefix}_{name}": values for name, values in own.items()},
        **likelihoods,
        **event,
        "RUNNUMBER": rng.integers(1, 9, n),
        "mutag_MUONLLBG": rng.normal(-3, 1, n),
        "Jpsi_M": rng.uniform(2900, 3300, n),
    }
    # The rank of each row after sorting, in an order of its own.
    places = np.lexsort([tuples[name] for name in reversed(order)])
    ranks = rng.permutation(n)
    sweights = rng.choice([1.3, -0.2], n, p=[0.8, 0.2])
    (folder / "tuples").mkdir()
    (folder / "sweights").mkdir()
    tree, stem = "JpsiToMuMupTagged_Detached/DecayTree", "00012345_00000001_1.pid_tuple"
    write_trees(folder / "tuples" / f"{stem}.root", {tree: tuples})
    found = {"sweight": sweights[places][ranks], "order_index": ranks}
    write_trees(folder / "sweights" / f"{stem}_sweights.root", {tree: found})
    chosen = {f"{track}_{name}": v[own["INMUON"]][:400] for name, v in own.items()}
    chosen |= {name: values[own["INMUON"]][:400] for name, values in event.items()}
    write_trees(folder / "b2jpsik.root", {"DecayTree": chosen})


def _write_collection(folder: Path, frame: pd.DataFrame) -> None:
    """Bundles of two species and polarities with references, and mixed rows."""
    (folder / "bundles").mkdir()
    for species, magnet in itertools.product(("K+", "pi+"), ("up", "down")):
        stem = f"{species[:-1]}_{magnet}"
        path = folder / "bundles" / f"{stem}.reference.parquet"
        write_table(path, frame)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        reference = {"file": path.name, "sha256": digest, "rows": len(frame)}
        card = _card()
        taking = {"polarity": magnet, "year": "2018"}
        sample = card.sample.model_copy(
            update={"species": species, "data_taking": taking}
        )
        card = card.model_copy(
            update={"species": species, "sample": sample, "reference": reference}
        )
        _write_bundle(folder / "bundles" / f"{stem}.onnx", card)
    content = simulate_analysis(500, seed=4)
    content["Polarity"] = np.resize(np.array([1, -1], np.int16), 500)
    write_trees(folder / "mixed.root", {ANALYSIS_TREE: content})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that examples start from."""
    folder = tmp_path_factory.mktemp("docs")
    _write_bundle(folder / "kaon.onnx", _card())
    bundle = pidgan.open_bundle(folder / "kaon.onnx")
    rng = np.random.default_rng(2)
    x = np.stack(
        [rng.uniform(3e3, 2e5, 4000), rng.uniform(1.5, 5.5, 4000)], axis=1
    ).astype(np.float32)
    x = np.column_stack([x, rng.integers(1, 900, 4000)]).astype(np.float32)
    y = bundle.generate(x, rng.standard_normal((4000, 5)).astype(np.float32))
    names = (*bundle.card.condition_names, *bundle.card.target_names)
    frame = pd.DataFrame(dict(zip(names, [*x.T, *y.T], strict=True))).assign(weight=1.0)
    path = folder / "kaon.reference.parquet"
    write_table(path, frame)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    reference = {"file": path.name, "sha256": digest, "rows": len(frame)}
    card = _card().model_copy(update={"reference": reference})
    _write_bundle(folder / "kaon.onnx", card)
    maps = pidgan.run_systematics(
        pidgan.open_bundle(folder / "kaon.onnx"),
        frame,
        cuts=["RichDLLk > 0"],
        binning={"P": [3e3, 2e4, 2e5], "ETA": [1.5, 3, 5.5], "nTracks": [0, 200, 1000]},
        repeats=2,
    )
    maps.save(folder / "kaon-map.json")
    write_trees(folder / "d2kpi.root", {ANALYSIS_TREE: simulate_analysis(500, seed=3)})
    _write_run3(folder)
    _write_collection(folder, frame)
    return folder


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_examples_run(
    page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    shutil.copytree(files, work)
    monkeypatch.chdir(work)
    for text in blocks(page, "toml"):
        if text.startswith("# campaign.toml"):
            (work / "campaign.toml").write_text(text, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "example"}
    for text in blocks(page, "python"):
        if text.startswith("# runnable"):
            for needed in re.findall(r"^# runnable with (\w+)", text):
                pytest.importorskip(needed)
            exec(compile(text, name_of(page), "exec"), names)


def test_a_collection_is_as_its_page_shows(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "how-to/application/collections.md").read_text(encoding="utf-8")
    monkeypatch.chdir(shutil.copytree(files, tmp_path / "work"))
    assert f"```text\n{collect(['bundles'], 'lhcb.toml').text()}\n```" in page
    text = (DOCS / "reference/collection.md").read_text(encoding="utf-8")
    for model in (Content, Member):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in text
