"The documentation pages: they build without a warning, and a browser shows them whole without asking any other machine."

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from api_entry import Module
from repository import ROOT, copy_checkout

OWN_NOTEBOOK = '{"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["[gone](nowhere.md)"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def built(checkout: Path, *options: str) -> Path:
    "Build the site from what a fresh clone would hold, with a notebook of the user's own in it."
    copy_checkout(checkout)
    for arguments in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=checkout, check=True)
    (checkout / "nbs" / "my look.ipynb").write_text(OWN_NOTEBOOK, encoding="utf-8")
    done = subprocess.run([sys.executable, checkout / "tools" / "build_docs.py", "--sphinx", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list((checkout / "_docs").rglob("my look*"))
    return checkout / "_docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    "The site with the results of one experiment: the notebooks of the others are run by nbdev_test, and all of them by the slow test below."
    return built(tmp_path_factory.mktemp("checkout"), "--experiments", "first_look")


def test_every_room_has_a_page_with_its_api(pages):
    rooms = sorted((ROOT / "nbs").glob("**/[0-9]*_*.ipynb"))
    assert rooms
    for notebook in rooms:
        page = (pages / notebook.relative_to(ROOT / "nbs")).with_suffix(".html").read_text(encoding="utf-8")
        exported = re.search(r"default_exp ([\w.]+)", notebook.read_text(encoding="utf-8"))[1]
        module = Module((ROOT / "zero_shot_distill").joinpath(*exported.split(".")).with_suffix(".py"), ROOT / "zero_shot_distill")
        lacking = [name for name in module.public if f'id="zero_shot_distill.{exported}.{name}"' not in page]
        assert lacking == [], notebook.name


def test_the_page_of_an_experiment_shows_its_results(pages):
    "Tables, figures and the answer, of the recorded run; the code of each is folded away."
    page = (pages / "experiments" / "first_look.html").read_text(encoding="utf-8")
    assert page.count("<img ") >= 3
    assert "teacher agreement (valid)" in page
    assert "At this size" in page
    assert page.count("<details") >= 10


def test_each_command_has_a_page(pages):
    "With every option and its example; the sidebar leads to them before the modules."
    from command_pages import commands, file_name

    found = dict(commands())
    assert {"explore", "store verify", "run"} <= found.keys()
    for name, command in found.items():
        page = (pages / "commands" / file_name(name)).with_suffix(".html").read_text(encoding="utf-8")
        assert "Example:" in page, name
        lacking = [
            option for parameter in command.params for option in parameter.opts if option.startswith("--") and f">{option}<" not in page
        ]
        assert lacking == [], name
    index = (pages / "index.html").read_text(encoding="utf-8")
    assert index.index(">Tutorials<") < index.index(">Commands<") < index.index(">Experiments<")


def look_at(paths: list[Path]) -> None:
    "Open each page once, in light colours on a wide window, and then look at it in dark ones on a telephone, too."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page()
        asked: list[str] = []
        broken: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: broken.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        for path in paths:
            for width, colours in ((1280, "light"), (390, "dark")):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=colours)
                if colours == "light":
                    page.goto(path.as_uri())
                too_wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert too_wide <= 0, f"{path.name} is {too_wide} pixels wider than a {width}-pixel window"
        browser.close()
    assert broken == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to look at the pages with")
def test_pages_fit_and_ask_nothing_of_other_machines(pages):
    "A browser opens the pages of all kinds: of each folder the three largest, and those with results. All pages are opened by the slow test below."
    folders: dict[Path, list[Path]] = {}
    for path in sorted(pages.rglob("*.html"), key=lambda path: path.stat().st_size, reverse=True):
        folders.setdefault(path.parent, []).append(path)
    largest = [path for paths in folders.values() for path in paths[:3]]
    kinds = {*largest, *(pages / name for name in ("index.html", "search.html", "experiments/first_look.html", "experiments/figures.html"))}
    assert len(kinds) >= 25
    look_at(sorted(kinds))


def test_no_page_names_a_file_of_another_machine(pages):
    "Neither a script, a picture or a frame, nor a sheet of styles; links to read are another thing."
    for path in pages.rglob("*.html"):
        found = re.findall(r"""<(?:[^<>]+\ssrc=|link\s[^<>]*href=)["'](?:https?:)?//[^"']+""", path.read_text(encoding="utf-8"))
        assert found == [], path.name


@pytest.mark.slow
def test_the_page_of_every_experiment_shows_its_answer(tmp_path):
    "Each is run as `make figures` does it, by papermill with its YAML file."
    site = built(tmp_path / "checkout")
    left = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (site / "figures" / "executed").glob("*.json")}
    assert left.keys() == {path.stem for path in (ROOT / "nbs" / "experiments").glob("*.ipynb")}
    overview = (site / "experiments" / "figures.html").read_text(encoding="utf-8")
    for name, made in left.items():
        page = (site / "experiments" / f"{name}.html").read_text(encoding="utf-8")
        assert made["answer"], name
        assert page.count("<img ") + page.count("<table") >= 1, name
        assert all(f"{figure}." in overview for figure in made["figures"]), name
    if CHROMIUM:
        look_at(sorted(site.rglob("*.html")))


def test_entry_shows_full_types_defaults_and_comments(tmp_path):
    source = tmp_path / "room.py"
    source.write_text(
        "def choose(\n"
        "    labels: tuple[str, ...],  # what is allowed | not\n"
        "    *,\n"
        "    seed: int = 0,  # of the draw\n"
        ") -> dict[str, float]:  # matches `(?P<label>...)` or (?P<label>), for $1 or $2\n"
        '    "One label."\n'
    )
    entry = Module(source).entry("choose")
    assert "{py:function} choose(labels: tuple[str, ...], *, seed: int = 0) -> dict[str, float]" in entry
    assert "| `labels` | `tuple[str, ...]` |  | what is allowed \\| not |" in entry
    assert "| `seed` | `int` | `0` | of the draw |" in entry
    assert "| *returns* | `dict[str, float]` |  | matches `(?P<label>...)` or (?P\\<label>), for \\$1 or \\$2 |" in entry
