"The documentation pages: they build without a warning, and a browser shows them whole without asking any other machine."

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from accessibility import violations
from api_entry import Module
from browser import CHROMIUM, needs_browser
from repository import ROOT, copy_checkout

OWN_NOTEBOOK = '{"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["[gone](nowhere.md)"]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}'


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


def test_the_sidebar_keeps_the_kinds_apart(pages):
    "Seen from each folder: in one order, with the page itself marked and what it stands below unfolded."
    kinds = [
        ">Getting started<",
        ">Tutorials<",
        ">How-to<",
        ">Explanations<",
        ">Reference<",
        ">Commands<",
        ">Experiments<",
        ">Modules<",
        ">core<",
    ]
    for name in ("index", "howto/own_data", "commands/annotate", "0_stats/00_interval", "80_pipeline"):
        page = (pages / f"{name}.html").read_text(encoding="utf-8")
        places = [page.index(kind, page.index('class="sidebar-tree"')) for kind in kinds]
        assert places == sorted(places), name
        if name != "index":
            (mine,) = re.findall(r'<li class="[^"]*current-page[^"]*"><a class="current reference internal" href="([^"]*)"', page)
            assert mine == name.rpartition("/")[2] + ".html"
        assert page.count('checked=""') == (name in ("commands/annotate", "0_stats/00_interval")), name


def look_at(browser, paths: list[Path]) -> None:
    "Open each page once, in light colours on a wide window, and then look at it in dark ones on a telephone, too."
    with closing(browser.new_page()) as page:
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
    assert broken == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@needs_browser
def test_pages_fit_and_ask_nothing_of_other_machines(browser, pages):
    """A browser opens the largest page of each folder and those with results; folders of modules, whose pages are of one kind, count as one.

    All pages are opened by the slow test below.
    """
    largest: dict[str, Path] = {}
    for path in sorted(pages.rglob("*.html"), key=lambda path: path.stat().st_size):
        largest["modules" if path.parent.name[:1].isdigit() else path.parent.name] = path
    kinds = {*largest.values(), *(pages / name for name in ("index.html", "search.html", "experiments/first_look.html"))}
    assert {"commands", "explanations", "experiments", "howto", "modules", "tutorials"} <= largest.keys()
    look_at(browser, sorted(kinds))


SEARCHES = [  # what is asked, the page that is found first, what its excerpt says
    ("--budget-usd", "commands/", "never spend more"),
    ("getting started", "getting_started.html", ""),
    ("cost", "howto/cost.html", "cost"),
    ("interval", "explanations/intervals.html", ""),
    ("hosted teacher", "howto/hosted_teacher.html", ""),
    ("vllm", "howto/own_server.html", "vllm"),
    ("explanation_rate", "", "explanation"),
    ("the teacher's price is not known, so a budget cannot be kept", "commands/messages.html", "--price-in"),
    ("annotation reviews-0123: no rows of split tset; it has train and valid", "commands/messages.html", "no rows of split"),
    ("ResponseStore", "1_store/01_store.html", ""),
]


@needs_browser
def test_search_finds_options_words_and_messages_and_shows_where(browser, pages):
    with closing(browser.new_page()) as page:
        found = {}
        page.goto((pages / "search.html").as_uri() + "?q=nothingofthekind")
        assert "Nothing is found" in page.text_content("#search-count")
        for words, _, _ in SEARCHES:
            page.fill("#search-words", words)
            first = page.locator("#search-results li").first
            found[words] = (first.locator("a").get_attribute("href"), first.locator("p.context").text_content())
            place, _, anchor = found[words][0].partition("#")
            target = (pages / place).read_text(encoding="utf-8")
            assert not anchor or f'id="{anchor}"' in target, found[words]
        wrong = {
            words: found[words]
            for words, address, said in SEARCHES
            if address not in found[words][0] or said not in found[words][1].lower()
        }
        assert wrong == {}
        page.fill("#search-words", "<img src=x onerror=alert(1)> budget")
        assert page.locator("#search-results img").count() == 0


def faults_seen(browser, pages: Path, names: list[str], ways: tuple[tuple[int, str], ...]) -> list[tuple]:
    "What axe finds on pages, each on windows of these widths in these colours. What frames of the explorer hold is looked at by test_explorer.py."
    found = set()
    with closing(browser.new_page()) as page:
        for name in names:
            page.goto((pages / f"{name}.html").as_uri() + "?q=budget" * (name == "search"))
            for width, colours in ways:
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=colours)
                left_out = ["iframe", *[".sidebar-drawer"] * (name != "index")]  # the sidebar is the same on all pages
                found |= {(name, width, colours, *fault) for fault in violations(page, left_out)}
        page.set_content("<html lang=en><title>t</title><main><p style='color:#999;background:#fff'>pale</p>")
        assert [rule for rule, *_ in violations(page)] == ["color-contrast"], "axe sees what is pale"
    return sorted(found)


LIGHT_AND_DARK = ((1280, "light"), (390, "dark"))


@needs_browser
def test_pages_keep_to_wcag_aa_as_far_as_axe_can_tell(browser, pages):
    "The home page, prose, results, a command and a module, light on a wide window and dark on a narrow one."
    names = ["index", "search", "experiments/first_look", "commands/annotate", "0_stats/00_interval"]
    assert faults_seen(browser, pages, names, LIGHT_AND_DARK) == []


@pytest.mark.slow
@needs_browser
def test_pages_of_the_other_kinds_keep_to_wcag_aa(browser, pages):
    "And the home page in the two other ways."
    names = ["getting_started", "tutorials/explore_replies", "tutorials/find_a_prompt", "howto/own_data", "explanations/intervals"]
    names += ["experiments/figures", "modules/stats"]
    assert faults_seen(browser, pages, names, LIGHT_AND_DARK) == []
    assert faults_seen(browser, pages, ["index"], ((1280, "dark"), (390, "light"))) == []


def test_figures_have_a_text(pages):
    "Of their own: not the name of a file, as Sphinx writes it where there is none."
    for path in pages.rglob("*.html"):
        for image in re.findall(r"<img [^>]*>", path.read_text(encoding="utf-8")):
            alt = re.search(r'alt="([^"]*)"', image)
            assert (alt and len(alt[1].split()) > 2) or "toggler" in image, f"{path.relative_to(pages)}: {image[:200]}"


def test_figures_of_one_cell_have_each_its_own_text():
    "Of a cell with a table between two figures, its code once; a text for the whole cell is that of each."
    from build_docs import Site

    site = object.__new__(Site)
    site.without_alt = []
    figures = [{"data": {"image/png": ""}, "metadata": {"image/png": {"alt": alt}}} for alt in ("one line", "two lines")]
    cell = {"cell_type": "code", "metadata": {}, "outputs": [figures[0], {"data": {"text/html": "<p>"}}, figures[1]]}

    def texts(source: str) -> list[tuple[str, int, bool]]:
        made = site._page_cell(cell, source, "tutorials/any.ipynb", None)
        return [(one["metadata"]["mystnb"]["image"]["alt"], len(one["outputs"]), "remove-input" in one["metadata"]["tags"]) for one in made]

    assert texts("draw()") == [("one line", 2, False), ("two lines", 1, True)]
    assert texts("#| fig-alt: lines\ndraw()") == [("lines", 2, False), ("lines", 1, True)]
    assert site.without_alt == []


def test_no_page_names_a_file_of_another_machine(pages):
    "Neither a script, a picture or a frame, nor a sheet of styles; links to read are another thing."
    for path in pages.rglob("*.html"):
        found = re.findall(r"""<(?:[^<>]+\ssrc=|link\s[^<>]*href=)["'](?:https?:)?//[^"']+""", path.read_text(encoding="utf-8"))
        assert found == [], path.name


@pytest.mark.slow
def test_the_page_of_every_experiment_shows_its_answer(request, tmp_path):
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
        look_at(request.getfixturevalue("browser"), sorted(site.rglob("*.html")))


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
