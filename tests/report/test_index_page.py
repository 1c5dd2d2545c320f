"""The index of a folder: what lies there, the worst first, whoever writes at once."""

import json
import re
import shutil
import threading
from pathlib import Path

import pytest
from command_line import Run

from pidgan.errors import NtupleError, PidganError

pytest.importorskip("mplhep")
pytest.importorskip("jinja2")

from pidgan.report import index_page
from pidgan.report.index_page import refresh_index, write_index
from pidgan.report.page import Section, write_page
from pidgan.report.verdict import judge


def make_report(folder: Path, name: str, pull: float | None) -> Path:
    verdict = None if pull is None else judge([(f"KS <{name}>", pull), ("b", 0.1)])
    sections = [Section(title="Summary", text="text")]
    return write_page(
        folder / name, f"Report of {name} & co", sections, lead="rows", verdict=verdict
    )


def links(index: Path) -> list[str]:
    found = re.findall(r'<td><a href="([^"]*report\.html)"', index.read_text())
    return list(dict.fromkeys(found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pulls = {"fine": 1.0, "bad one": 9.0, "so so": 3.3, "old/deep": None}
    for name, pull in pulls.items():
        make_report(tmp_path, name, pull)
    (tmp_path / "kaon.onnx").write_bytes(b"")
    return tmp_path


def test_reports_are_listed_the_worst_first(folder: Path) -> None:
    index = write_index(folder)
    order = ["bad%20one", "so%20so", "fine", "old/deep"]
    assert links(index) == [f"{name}/report.html" for name in order]
    text = index.read_text()
    assert "Report of bad one &amp; co" in text
    assert "KS &lt;bad one&gt;" in text
    assert text.index("9.0 sigma") < text.index("3.3 sigma")
    assert 'href="kaon.onnx"' in text
    for address in re.findall(r'href="([^"#]+)"', text):
        assert (folder / address.replace("%20", " ")).is_file(), address


def test_deleted_reports_are_gone_and_new_ones_are_added(folder: Path) -> None:
    index = write_index(folder)
    shutil.rmtree(folder / "bad one")
    refresh_index(make_report(folder, "new", 5.0))
    assert links(index)[0] == "new/report.html"
    assert "bad" not in "".join(links(index))
    assert len(links(index)) == 4


def test_no_folder_gets_an_index_that_nobody_asked_for(folder: Path) -> None:
    refresh_index(make_report(folder, "new", 5.0))
    assert not list(folder.rglob("index.html"))


def test_a_page_of_somebody_else_is_kept(folder: Path) -> None:
    (folder / "index.html").write_text("<title>My thesis</title>")
    with pytest.raises(NtupleError, match="was not written by pidgan"):
        write_index(folder)
    refresh_index(make_report(folder, "new", 5.0))
    assert "thesis" in (folder / "index.html").read_text()


def test_strange_pages_do_no_harm(folder: Path) -> None:
    for name, head in {
        "plain": "",
        "list": '<meta name="pidgan-page" content="[1]">',
        "broken": '<meta name="pidgan-page" content="{">',
        "texts": '<meta name="pidgan-page" content="{&#34;pull&#34;: &#34;x&#34;, '
        '&#34;ranked&#34;: [1, [&#34;a&#34;]], &#34;level&#34;: 3}">',
    }.items():
        (folder / name).mkdir()
        (folder / name / "report.html").write_text(f"<title>{name}</title>{head}")
    (folder / "empty").mkdir()
    (folder / "empty" / "report.html").touch()
    index = write_index(folder)
    # An empty file is no page.
    assert len(links(index)) == 4 + 4


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PidganError, match=r"has no report\.html"):
        write_index(tmp_path)
    with pytest.raises(PidganError, match="does not exist"):
        write_index(tmp_path / "none")


def test_two_commands_at_once_lose_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_index(folder)
    # The first writer looks, waits until the second has written, and writes then.
    looked, second = threading.Event(), threading.Event()
    find_pages, first = index_page.find_pages, threading.Thread

    def slow(place: Path) -> list:
        found = find_pages(place)
        if threading.current_thread().name == "first" and not looked.is_set():
            looked.set()
            second.wait(10)
        return found

    monkeypatch.setattr(index_page, "find_pages", slow)
    thread = first(target=lambda: write_index(folder), name="first")
    thread.start()
    looked.wait(10)
    refresh_index(make_report(folder, "second", 7.0))
    second.set()
    thread.join(20)
    assert "second/report.html" in links(folder / "index.html")


def test_many_writers_agree_in_the_end(folder: Path) -> None:
    write_index(folder)

    def work(i: int) -> None:
        refresh_index(make_report(folder, f"of writer {i}", float(i)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(links(folder / "index.html")) == 4 + 8
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_the_verb_prints_the_path(run: Run, folder: Path) -> None:
    assert run("report", folder).out.strip() == str(folder / "index.html")
    found = json.loads(run("report", folder, "--json").out)
    assert found["reports"][0]["path"] == "bad one/report.html"
    result = run("report", folder / "fine" / "report.html")
    assert result.code == 1
    assert "is a file, expected a folder with reports" in result.err
