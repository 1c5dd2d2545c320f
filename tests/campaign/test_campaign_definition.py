"""Files of campaigns: what they stand for, and mistakes that are found before work."""

import re
from pathlib import Path

import pytest
from toy_campaign import CAMPAIGN, write_campaign

from pidgan.campaign.checks import check_campaign
from pidgan.campaign.definition import Campaign
from pidgan.campaign.grid import planned_bundles
from pidgan.errors import CampaignError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_campaign(tmp_path_factory.mktemp("campaign")).parent


def written(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text)
    return path


def test_a_grid_has_every_combination_in_order(folder: Path) -> None:
    bundles = planned_bundles(Campaign.open(folder / "campaign.toml"))
    names = ["kaon-down", "kaon-up", "pion-down", "pion-up"]
    assert [one.name for one in bundles] == names
    assert bundles[2].options.sample == "pion.toml"
    assert bundles[2].options.files == ("pion_down.root",)
    assert bundles[2].data_taking == {"polarity": "down"}


def test_tasks_follow_those_that_they_need(folder: Path) -> None:
    tasks = check_campaign(Campaign.open(folder / "campaign.toml"))
    seen: set[str] = set()
    for task in tasks:
        assert seen.issuperset(task.before), task.name
        seen.add(task.name)
    assert len(seen) == len(tasks) == 4 * 5 + 1
    # The first bundle is ready before the second begins.
    assert [t.bundle for t in tasks[:5]] == ["kaon-down"] * 5


def test_the_sample_of_a_bundle_states_its_data_taking(folder: Path) -> None:
    tasks = check_campaign(Campaign.open(folder / "campaign.toml"))
    prepare = next(t for t in tasks if t.name == "pion-up.prepare")
    assert prepare.settings["sample"]["data_taking"] == {"polarity": "up"}


def test_changes_apply_to_what_they_name(folder: Path) -> None:
    text = CAMPAIGN + (
        '[[change]]\nwhen = {hadron = "pion"}\ntrain = {steps = 7}\n'
        '[[change]]\nwhen = {hadron = "pion", polarity = ["up"]}\nleave_out = true\n'
        '[[change]]\nwhen = {polarity = "up"}\ntrain = {budget = "2m"}\n'
    )
    bundles = planned_bundles(Campaign.open(written(folder, text)))
    found = {
        one.name: (one.options.train.steps, one.options.train.budget) for one in bundles
    }
    # A budget takes the place of steps.
    assert found == {
        "kaon-down": (20, None),
        "kaon-up": (None, "2m"),
        "pion-down": (7, None),
    }
    assert all(one.options.train.settings == {"xla": False} for one in bundles)


def test_a_file_of_settings_counts_by_its_content(folder: Path) -> None:
    text = CAMPAIGN.replace("{xla = false}", '"tuned.toml"')
    (folder / "tuned.toml").write_text('family = "energy"\n[settings]\nwidth = 32\n')
    tasks = check_campaign(Campaign.open(written(folder, text)))
    train = next(task for task in tasks if task.stage == "train")
    assert train.settings["family"] == "energy"
    assert train.settings["settings"] == {"width": 32}
    (folder / "tuned.toml").write_text('family = "energy"\n[settings]\nwidht = 32\n')
    with pytest.raises(CampaignError, match=r"'widht'.*'width'"):
        check_campaign(Campaign.open(written(folder, text)))


def test_processes_of_a_training_need_their_cores(folder: Path) -> None:
    text = CAMPAIGN + (
        '[[change]]\nwhen = {hadron = "pion"}\ntrain = {processes = 3}\n'
    )
    campaign = Campaign.open(written(folder, f"threads = 2\n{text}"))
    assert campaign.cores == 6
    trainings = [task for task in check_campaign(campaign) if task.stage == "train"]
    found = {task.bundle: task.settings.get("processes") for task in trainings}
    # One process is as before, and its records stay valid.
    assert found == {
        "kaon-down": None,
        "kaon-up": None,
        "pion-down": 3,
        "pion-up": 3,
    }


def test_rejected_bundles_differ_along_one_axis(folder: Path) -> None:
    text = CAMPAIGN + '[validate]\nmisid = "hadron"\n'
    tasks = check_campaign(Campaign.open(written(folder, text)))
    judged = next(t for t in tasks if t.name == "kaon-up.validate")
    assert judged.perhaps == ("pion-up.prepare", "pion-up.train")


def test_names_fit_file_systems(folder: Path) -> None:
    text = CAMPAIGN.replace('"kaon", "pion"', '"K+", "pi-"')
    names = [one.name for one in planned_bundles(Campaign.open(written(folder, text)))]
    assert names == ["Kplus-down", "Kplus-up", "piminus-down", "piminus-up"]


HEAD = 'schema = 1\nfiles = "kaon_down.root"\n'
# Text of a campaign, or what replaces a part of one; and the error.
MISTAKES = {
    "no schema": ("grid = {a = [1]}", "schema is missing"),
    "another schema": ("schema = 2\ngrid = {a = [1]}", "schema is 2, expected 1"),
    "no TOML": ("schema = ", "is not valid TOML"),
    "an empty file": ("", "grid is missing|schema is missing"),
    "unknown key": (f"{HEAD}trian = 1\ngrid = {{a = [1]}}", "key trian.*'train'"),
    "unknown key of a table": (
        CAMPAIGN.replace("steps", "stpes"),
        "unknown key train.stpes; closest: 'steps'",
    ),
    "a table with another": (CAMPAIGN + "[validate]\nmis_id = 1\n", "'misid'"),
    "unknown key of a change": (
        f'{CAMPAIGN}[[change]]\nwhen = {{hadron = "pion"}}\ntrian = {{}}\n',
        "change 1: unknown key trian; closest: 'train'",
    ),
    "unknown key of a run": (f"{CAMPAIGN}[run]\nwokers = 2\n", "'workers'"),
    "an empty grid": (f"{HEAD}[grid]\n", "the grid is empty"),
    "an empty axis": (f"{HEAD}[grid]\na = []\n", "grid.a is an empty list"),
    "an axis with a value twice": (f"{HEAD}[grid]\na = [1, 1]\n", "a value twice"),
    "an axis of other values": (f"{HEAD}[grid]\na = [1.5]\n", "grid.a"),
    "an axis that is no list": (f"{HEAD}[grid]\na = 1\n", "grid.a is 1, expected"),
    "too many bundles": (
        f"{HEAD}[grid]\na = {list(range(40))}\nb = {list(range(40))}\n",
        "1600 bundles, expected at most 1000",
    ),
    "nothing left": (
        f'{CAMPAIGN}[[change]]\nwhen = {{hadron = ["kaon", "pion"]}}\n'
        "leave_out = true\n",
        "every bundle is left out",
    ),
    "an axis that a change misspells": (
        f'{CAMPAIGN}[[change]]\nwhen = {{hardon = "pion"}}\nleave_out = true\n',
        "axis 'hardon', which the grid lacks; closest: 'hadron'",
    ),
    "a value that a change misspells": (
        f'{CAMPAIGN}[[change]]\nwhen = {{hadron = "pino"}}\nleave_out = true\n',
        "'pino', which grid.hadron lacks; closest: 'pion'",
    ),
    "a change of all": (f"{CAMPAIGN}[[change]]\nwhen = {{}}\nseed = 2\n", "when"),
    "one name twice": (f'name = "x-{{hadron}}"\n{CAMPAIGN}', "two bundles.*'x-kaon'"),
    "a name of another kind": (f'name = "a/{{hadron}}"\n{CAMPAIGN}', "name 'a/kaon'"),
    "an unknown axis in a text": (
        CAMPAIGN.replace("{hadron}.toml", "{hadrn}.toml"),
        r"\{hadrn\} in .* is no axis of the grid; closest: 'hadron'",
    ),
    "no sample": (CAMPAIGN.replace("sample =", "title ="), "no `sample`"),
    "no such sample": (CAMPAIGN.replace("{hadron}.toml", "run2_dstr_k"), "run2_dstar"),
    "no such file of a sample": (CAMPAIGN.replace("{hadron}.toml", "no.toml"), "no.t"),
    "no files": (CAMPAIGN.replace("files =", "title ="), "no `files`"),
    "a species without files": (
        CAMPAIGN.replace("{hadron}_{polarity}.root", "{hadron}_{polarity}*.roott"),
        "bundle kaon-down: no file matches",
    ),
    "a file that is not there": (
        CAMPAIGN.replace("{hadron}_{polarity}", "{hadron}-{polarity}"),
        "kaon-down.root",
    ),
    "another species": (
        CAMPAIGN.replace('"{hadron}.toml"', '"kaon.toml"').replace("hadron", "species"),
        "species = 'kaon', but sample .* is of K",
    ),
    "another polarity": (
        CAMPAIGN.replace("{hadron}.toml", "states.toml"),
        "polarity = 'down', but sample 'states' says 'MagUp'",
    ),
    "both lengths": (CAMPAIGN + 'budget = "2m"\n', "steps"),
    "no length": (CAMPAIGN.replace("= 20", '= "x"'), "x"),
    "no such family": (
        CAMPAIGN.replace("steps =", 'family = "cramr"\nsteps ='),
        "cram",
    ),
    "no such setting": (CAMPAIGN.replace("xla", "xlo"), "'xlo'.*'xla'"),
    "processes for a family of one": (
        CAMPAIGN.replace("steps =", 'family = "cramer"\nprocesses = 2\nsteps ='),
        "family 'cramer' compares the rows of a step",
    ),
    "no process": (CAMPAIGN.replace("steps =", "processes = 0\nsteps ="), "processes"),
    "no such cut": (f'cuts = ["DLK > 0"]\n{CAMPAIGN}', "'DLL'"),
    "no cut at all": (f"cuts = []\n{CAMPAIGN}", "an efficiency map needs cuts"),
    "no such condition": (f"{CAMPAIGN}[systematics]\nvary = {{p = 1.1}}\n", "'P'"),
    "no such binning": (f'{CAMPAIGN}[systematics]\nbinning = "hadron"\n', "'hadrons'"),
    "no such variation": (f'{CAMPAIGN}[systematics]\nvariations = "lmit"\n', "'limit'"),
    "no such axis of misID": (f'{CAMPAIGN}[validate]\nmisid = "hadrons"\n', "'hadron'"),
    "shares": (f"{CAMPAIGN}[prepare]\nshares = [0.5, 0.5, 0.5]\n", "sum 1"),
    "an unknown stage": (f'stages = ["prepare", "trian"]\n{CAMPAIGN}', "stages"),
    "a stage twice": (f'stages = ["prepare", "prepare"]\n{CAMPAIGN}', "twice"),
    "a stage without its own": (
        f'stages = ["prepare", "export"]\n{CAMPAIGN}',
        "'train'",
    ),
    "a collection that cannot choose": (
        CAMPAIGN.replace("polarity", "magnet"),
        "kaon-down.*kaon-up.*both serve",
    ),
    "an unknown column": (
        f'{CAMPAIGN}[collect]\nchoose = {{run = "x"}}\n',
        "column 'run'",
    ),
    "threads": (f"threads = 0\n{CAMPAIGN}", "threads is 0, expected"),
    "seed": (f"seed = -1\n{CAMPAIGN}", "seed is -1, expected"),
    "seed as a text": (f'seed = "1"\n{CAMPAIGN}', "seed is '1', expected"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_found_before_work(folder: Path, what: str) -> None:
    text, message = MISTAKES[what]
    states = (folder / "kaon.toml").read_text() + 'data_taking = {polarity = "MagUp"}\n'
    (folder / "states.toml").write_text(states)
    before = set(folder.rglob("*"))
    with pytest.raises(CampaignError) as found:
        check_campaign(Campaign.open(written(folder, text)))
    assert re.search(message, str(found.value)), str(found.value)
    assert "\n" not in str(found.value)
    assert "own.toml" in str(found.value)
    assert set(folder.rglob("*")) - before <= {folder / "own.toml"}


def test_another_file_is_named_as_what_it_is(folder: Path) -> None:
    with pytest.raises(CampaignError, match="is a sample definition, expected the fi"):
        Campaign.open(folder / "kaon.toml")
    with pytest.raises(CampaignError, match="no such file"):
        Campaign.open(folder / "none.toml")
