"The points of figures lead to the replies behind them, as a reader has it: a page, a click in Chromium, the explorer."

import gzip
import json
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from browser import needs_browser

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.project import recorded_project
from zero_shot_distill.study.comparable import recorded_students_dir
from zero_shot_distill.study.experiments import Experiment, MadeFigures, _make
from zero_shot_distill.study.gallery import write_index
from zero_shot_distill.study.notebook import execute_notebook, experiments_dir, place_links, write_page
from zero_shot_distill.study.records import read_run


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    "A folder of figures of `ner_prompts`, made from recorded replies of a work directory."
    work_dir, folder = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("figures")
    recorded_project(work_dir, "entities").close()
    # A definition with the prompts that were asked, which are not those of today.
    data = definitions_dir()
    (work_dir / "tasks").mkdir()
    shutil.copyfile(data / "tasks" / "pocket_names.yaml", work_dir / "tasks" / "pocket_names.yaml")
    prompts = yaml.safe_load((data / "recorded_runs" / "entities" / "prompts.yaml").read_text(encoding="utf-8"))
    prompts["templates"] = [one for one in prompts["templates"] if one["id"] != "candidates-nearest"]  # it takes an encoder
    (work_dir / "tasks" / "pocket_names-prompts.yaml").write_text(yaml.safe_dump(prompts, allow_unicode=True), encoding="utf-8")
    shutil.copytree(data / "pocket_names", work_dir / "pocket_names")
    teacher = definitions_dir() / "recorded_runs" / "entities" / "teacher.yaml"
    asked = {
        "work_dir": str(work_dir),
        "task_name": str(work_dir / "tasks" / "pocket_names.yaml"),
        "teacher_file": str(teacher),
        "n_rows": 16,
        "seed": 0,
        "figures_dir": "",
    }
    (folder / "executed").mkdir()
    _make(Experiment(experiments_dir() / "ner_prompts.ipynb", asked, folder))
    write_index(folder)
    return folder


def replies_in(page: Path) -> list[dict[str, str]]:
    "Read which replies the page of an explorer shows: template, row, and the part of the rows that it is of."
    data = json.loads(gzip.decompress(b64decode(re.search(r'type="text/plain">([^<]+)<', page.read_text())[1])))
    lines = [dict(zip(data["columns"], line, strict=True)) for line in data["replies"]]
    return [{"template": line["template"], "row": line["row"], "part": data["rows"][line["row"]]["part"]} for line in lines]


def follow(page, link) -> str:
    "Open what a link leads to in the same tab; what the explorer counts."
    page.goto(link.evaluate("(one) => new URL(one.getAttribute('xlink:href') ?? one.getAttribute('href'), document.baseURI).href"))
    page.wait_for_selector(".count:not(:empty)")
    return page.inner_text(".count")


@needs_browser
def test_points_of_a_page_an_index_and_a_figure_lead_to_their_replies(browser, names):
    made = MadeFigures.read(names / "executed" / "ner_prompts.json")
    assert made.figures == ("ner_prompts_pocket_names",)
    assert made.replies == ("ner_prompts.replies.html",)
    page = browser.new_page()
    for start in (names / "executed" / "ner_prompts.html", names / "ner_prompts_pocket_names.svg"):
        page.goto(start.as_uri())
        points = page.locator("svg a")
        found = {dict(parse_qsl(urlsplit(points.nth(n).get_attribute("xlink:href")).fragment))["template"] for n in range(points.count())}
        assert len(found) == 3  # of each template on whose replies the figure rests
        assert points.count() == 4 * len(found)  # F1, two shares of refused mentions, the cost
        points.first.click(trial=True)  # nothing lies above it
        assert follow(page, points.first).startswith("16 of ")
    page.goto((names / "executed" / "ner_prompts.html").as_uri())
    assert follow(page, page.locator("figcaption a").first).startswith("16 of ")
    page.goto((names / "index.html").as_uri())
    assert "48 replies" in follow(page, page.get_by_text("ner_prompts.replies.html"))
    page.close()


@pytest.mark.slow  # test_the_report_of_a_run_leads_to_the_rows_of_each_point has those of today
def test_replies_of_before_go_with_a_run_that_has_none(names, tmp_path):
    folder = tmp_path / "figures"
    shutil.copytree(names, folder)
    experiment = Experiment(experiments_dir() / "ner_prompts.ipynb", {"work_dir": "", "task_name": "wnut17", "figures_dir": ""}, folder)
    assert Experiment(experiment.notebook, {}, folder).is_done
    (folder / "ner_prompts.replies.html").rename(tmp_path / "away.html")
    assert not Experiment(experiment.notebook, {}, folder).is_done  # points would lead nowhere
    (tmp_path / "away.html").rename(folder / "ner_prompts.replies.html")
    _make(experiment)
    assert MadeFigures.read(experiment.executed(".json")).replies == ()
    assert not list(folder.glob("*.replies.html"))
    assert ".replies.html" not in (folder / "ner_prompts_wnut17.svg").read_text()
    assert "recorded without their replies" in experiment.executed(".html").read_text()


@needs_browser
def test_the_report_of_a_run_leads_to_the_rows_of_each_point(browser, tmp_path):
    "Those of the selection and those of the confirmation are told apart."
    project = recorded_project(tmp_path)
    run_dir = tmp_path / "mine"
    shutil.copytree(definitions_dir() / "recorded_runs" / "demo", run_dir)
    winner = read_run(run_dir).prompts.winner
    explorer = project.explore(n=12)
    replies = [replace(read, template_id=winner) for read in explorer.replies if read.template_id == "one-sentence"]
    ids = [read.example.id for read in replies]
    parts = dict.fromkeys(ids[:8], "selection") | dict.fromkeys(ids[8:], "confirmation")
    replace(explorer, replies=replies, parts=parts, tags_file=None).write(run_dir / "replies.html")
    project.close()
    executed, page_path = run_dir / "report" / "first_look.ipynb", run_dir / "report" / "first_look.html"
    execute_notebook(experiments_dir() / "first_look.ipynb", executed, {"run_dir": str(run_dir)})
    place_links(executed, run_dir / "figures")
    write_page(executed, page_path, "mine")
    assert str(tmp_path) not in page_path.read_text()
    page = browser.new_page()
    for part, n in (("selection", 8), ("confirmation", 4)):
        page.goto(page_path.as_uri())
        links = page.locator(f"svg a[*|href*='part={part}&template={winner}']")
        assert links.count() == 3  # accuracy, explanation rate, both
        assert follow(page, links.first).startswith(f"{n} of 12 replies")
    page.close()


def test_points_of_a_search_lead_to_replies_or_nowhere(tmp_path):
    recorded_project(tmp_path, "search").close()
    executed, figures = tmp_path / "figures" / "executed" / "prompt_search.ipynb", tmp_path / "figures"
    execute_notebook(experiments_dir() / "prompt_search.ipynb", executed, {"work_dir": str(tmp_path)})
    place_links(executed, figures)
    answered = {one["template"] for one in replies_in(figures / "prompt_search.replies.html")}
    outputs = [output for cell in json.loads(executed.read_text())["cells"] for output in cell.get("outputs", ())]
    shown = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    linked = [
        dict(parse_qsl(urlsplit(unescape(link)).fragment))["template"]
        for link in re.findall(r'xlink:href="\.\./prompt_search([^"]*)"', shown)
    ]
    assert len(set(linked)) > 3
    assert set(linked) <= answered


def test_points_of_students_lead_to_the_replies_that_they_learned(tmp_path):
    project = recorded_project(tmp_path)
    made = project.annotate("one-sentence", rows={"train": 12})
    project.close()
    (tmp_path / "runs").mkdir()
    for path in recorded_students_dir().glob("*.json"):
        record = json.loads(path.read_text())
        if record["annotation"] in ("pocket_nli-09861c0963a3", "shared-svamp"):  # with other answers, for one page each
            (tmp_path / "runs" / path.name).write_text(json.dumps(record | {"annotation": made.id}))
    for name in ("pareto", "explanation_rate"):
        execute_notebook(experiments_dir() / f"{name}.ipynb", tmp_path / "executed.ipynb", {"work_dir": str(tmp_path)})
        drawn = (tmp_path / "figures" / f"{name}.svg").read_text()
        points = re.findall(r'xlink:href="([^"#]+\.html[^"]*)"', drawn)
        assert set(points) == {f"{name}.{made.id}.replies.html"}
        assert len(points) > 10  # means, students, and differences
        behind = replies_in(tmp_path / "figures" / points[0])
        assert {one["row"] for one in behind} == {row.id for row in made.rows["train"]}
        assert {one["part"] for one in behind} == {"train"}
        assert "also where they learned a share" in (tmp_path / "executed.ipynb").read_text()
