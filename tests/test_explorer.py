"The explorer in a real browser: hostile text, many rows, two prompts side by side, tags by keyboard; the command that serves it."

import json
import shutil
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from zero_shot_distill.core.definition import DataError
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.project import Project, recorded_project
from zero_shot_distill.prompt.fault import ReadFault
from zero_shot_distill.prompt.replies import read_each, unanswered
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.study.explore import Explorer, explore_stored, read_tags, serve_explorer, tags_path, write_tag
from zero_shot_distill.task.task import Example, load_task

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
TASK = load_task("pocket_nli")
TELL = PromptTemplate(id="tell", user_message="{premise}\n{hypothesis}", read="label-first")
GUESS = PromptTemplate(id="guess", user_message="Guess: {hypothesis}", read="label-first")
HOSTILE = '</script><script>document.title = "run"</script><img src=x onerror="document.title=\'run\'"> & <b>bold</b> \u202e \u0000 👍'


def replied(n: int, says=lambda place: "Neutral. It is not said there at all.", templates=(TELL,), gold=lambda place: "neutral") -> list:
    rows = [
        Example(
            f"row-{place}",
            {"premise": f"Number {place} waits.", "hypothesis": HOSTILE if place == 3 else "Somebody waits."},
            gold(place),
            None,
        )
        for place in range(n)
    ]
    asked = [
        (
            template,
            row,
            Response(
                sha256(f"{place} {number}".encode()).hexdigest(),
                says(place),
                "stop",
                40,
                12,
                0.5,
                1,
                "2026-11-28T12:00:00+00:00",
                "some-model",
                cost_usd=0.001,
            ),
        )
        for place, row in enumerate(rows)
        for number, template in enumerate(templates)
    ]
    return list(read_each(asked, TASK))


def explorer_of(replies: list, **changes: object) -> Explorer:
    templates = {template.id: template for template in (TELL, GUESS)}
    return Explorer(**{"title": "Replies", "about": "some-model", "task": TASK, "replies": replies, "templates": templates} | changes)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, tmp_path):
    "Opens an explorer's page; a message on the console fails the test."
    faults, context = [], browser.new_context(viewport={"width": 1280, "height": 900})

    def open_page(explorer: Explorer, start: str = ""):
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(f"{explorer.write(tmp_path / 'replies.html').as_uri()}#{start}")
        page.wait_for_selector(".count:not(:empty)")
        return page

    yield open_page
    context.close()
    assert not faults


@needs_browser
def test_what_others_wrote_is_text(opened):
    "In a reply, a row, a gold label, a template's name, a reason, a message, a student's answer, a tag."
    hostile = TELL.model_copy(update={"id": HOSTILE})
    row = Example(HOSTILE, {HOSTILE: HOSTILE, "premise": HOSTILE, "hypothesis": HOSTILE}, HOSTILE, None)
    response = Response("a" * 64, f"{HOSTILE} neutral {HOSTILE}", HOSTILE, 1, 1, 0.1, 1, HOSTILE, HOSTILE)
    (read,) = read_each([(hostile, row, response)], TASK)
    replies = [read, unanswered(hostile.id, row, ReadFault.NO_RESPONSE, HOSTILE)]
    sent = Request.build("m", [{"role": "user", "content": HOSTILE}])
    page = opened(explorer_of(replies, title=HOSTILE, about=HOSTILE, requests={response.key: sent}))
    page.keyboard.press("Enter")
    assert HOSTILE.split("\u202e")[0].strip() in page.locator("dialog").inner_text()
    page.keyboard.press("t")
    page.keyboard.type("<img src=x onerror=1>")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    for view in ("Side by side", "Not read", "Words and errors", "Tags"):
        page.click(f"button:text-is('{view}')")
    assert page.title() == HOSTILE.replace("\u0000", "\ufffd") or page.title() != "run"
    assert not page.query_selector("img, .body b b, script[src]")
    assert page.locator("script").count() == 2


@needs_browser
def test_ten_thousand_replies_are_painted_at_once_and_searched(opened):
    "The time itself is in tests/benchmarks/explorer.py; here: few are drawn, more come as the reader scrolls, all are searched."
    page = opened(explorer_of(replied(10_000, lambda place: f"Neutral. Reason {place} is not said there.")))
    assert page.locator("tbody tr").count() == 50
    assert page.inner_text(".count").startswith("10,000 replies · 10,000 of 10,000 right")
    page.locator(".end").scroll_into_view_if_needed()
    page.locator("tbody tr").nth(99).wait_for()
    page.fill("input[type=search]", "REASON 9876 is")
    page.locator("tbody tr", has_text="row-9876").wait_for()
    assert page.locator("tbody tr").count() == 1


@needs_browser
def test_filters_sorting_and_the_parts_of_a_reply(opened):
    says = ["👍 Neutral. It is not said there at all.", "Contradiction, since nobody waits there today.", "Hard to say."]
    page = opened(explorer_of(replied(9, lambda place: says[place % 3])), "outcome=wrong")
    assert page.locator("tbody tr").count() == 3  # the address may say what is shown first
    page.select_option("select[aria-label=outcome]", "unread")
    assert "not read: no label" in page.inner_text("tbody")
    page.click("button:text-is('show all')")
    page.click("th button:text-is('words')")
    assert [int(cell) for cell in page.locator("td.number[data-name=words]").all_inner_texts() if cell != "–"] == [5, 5, 5, 7, 7, 7]
    page.click("th button:text('words')")
    assert page.locator("td.number[data-name=words]").first.inner_text() == "7"
    assert page.locator("td.number[data-name=words]").last.inner_text() == "–"  # what is not known is last either way
    page.select_option("select[aria-label=outcome]", "right")
    assert page.locator("tbody tr:first-child mark.label").inner_text() == "Neutral"
    assert page.locator("tbody tr:first-child mark.rationale").inner_text().startswith("It is")


@needs_browser
def test_two_prompts_and_a_student_side_by_side(opened):
    from zero_shot_distill.student.measure import PredictedRow

    replies = replied(6, lambda place: "Neutral. It is not said.", (TELL, GUESS))
    replies = [
        *replies[:2],
        *replied(2, lambda place: "Entailment, it is said there.", (GUESS,))[1:],
        *[read for read in replies[2:] if (read.example.id, read.template_id) != ("row-1", "guess")],
    ]
    said = {"row-0": PredictedRow("row-0", {}, "neutral", None, "contradiction", None, "for no reason", False, "")}
    page = opened(explorer_of(replies, said=said), "view=pairs")
    assert "6 rows with both; the labels differ on 1; only tell is right on 1, only guess on 0, neither on 0" in page.inner_text("main")
    page.select_option("select[aria-label=show]", "flipped")
    assert "row-1" in page.inner_text(".body article")
    assert page.locator("article").count() == 1
    page.select_option("select[aria-label=show]", "all")
    page.select_option("select[aria-label=second]", "the student")
    assert "1 row with both; the labels differ on 1" in page.inner_text("main")
    assert "for no reason" in page.inner_text("article")


@needs_browser
def test_tags_by_keyboard_reach_the_file(browser, tmp_path):
    replies = replied(5)
    explorer = explorer_of(replies, tags_file=tags_path(tmp_path / "responses.sqlite"))
    address, is_over = [], threading.Event()
    ready = threading.Event()
    server = threading.Thread(target=serve_explorer, args=(explorer, lambda at: (address.append(at), ready.set()), is_over.is_set))
    server.start()
    try:
        assert ready.wait(20)
        page = browser.new_page()
        page.goto(address[0])
        page.wait_for_selector("tbody tr")
        page.keyboard.press("j")
        page.keyboard.press("t")
        page.keyboard.type("good, wrong premise")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        with page.expect_response("**/tags"):
            page.keyboard.press("1")
        keys = [read.response.key[:16] for read in replies]
        expected = {keys[1]: ["good", "wrong premise"], keys[2]: ["good"]}
        assert read_tags(explorer.tags_file) == expected
        page.reload()
        page.wait_for_selector(".tag")
        assert page.locator("tbody .tag").all_inner_texts() == ["good", "wrong premise", "good"]
        page.click("button:text-is('Tags')")
        assert "good\t2" in page.inner_text(".body").replace("\n", "")
        page.close()
        # Another address, a form of another site, what is no tag: refused, and nothing is written.
        for at, kind, content, status in (
            (address[0].rsplit("/", 2)[0] + "/", "application/json", b"{}", 404),
            (address[0] + "tags", "text/plain", b'{"key": "a", "template": "t", "row": "r", "tags": ["x"]}', 404),
            (address[0] + "tags", "application/json", b'{"key": "a"}', 400),
            (address[0] + "tags", "application/json", b"[1", 400),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(at, content, {"Content-Type": kind}))
            assert refused.value.code == status
        assert read_tags(explorer.tags_file) == expected
    finally:
        is_over.set()
        server.join()


@needs_browser
def test_no_wider_than_the_screen(opened):
    page = opened(explorer_of(replied(4, lambda place: f"Neutral. {'x' * 900}", (TELL, GUESS))))
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for view in ("Replies", "Side by side", "Not read", "Words and errors", "Tags"):
            page.click(f"button:text-is('{view}')")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view


def test_two_thousand_replies_fit_in_five_megabytes():
    "With rows and reasons that do not repeat themselves: 100 words of 20,000 each."
    import random

    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 10))) for _ in range(20_000)]
    replies = replied(2000, lambda place: "Neutral. " + " ".join(draw.choices(words, k=100)))
    assert len(explorer_of(replies).page()) < 5_000_000


@needs_browser
def test_what_the_teacher_was_not_asked_is_no_error_of_its(opened):
    "Rows that only a student answered are neither wrong nor not read."
    replies = replied(4)
    others = [
        unanswered("(teacher not asked)", Example(f"other-{n}", {"premise": "a"}, "neutral", None), ReadFault.NOT_ASKED, "not asked")
        for n in range(6)
    ]
    page = opened(explorer_of([*replies, *others]))
    assert page.inner_text(".count") == "4 replies · 4 of 4 right · 6 rows without one"
    page.click("button:text-is('Not read')")
    assert "Every one of these replies was read" in page.inner_text(".body")


@needs_browser
def test_what_is_side_by_side_opens_by_keyboard(opened):
    page = opened(explorer_of(replied(2, templates=(TELL, GUESS))), "view=pairs")
    page.focus("article section button")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] h2").inner_text() == "tell, row-0"


def test_tags_are_those_of_the_replies_shown_and_of_now(tmp_path):
    "Not those of the store's other replies; a widget that is shown again has what was given since."
    explorer = explorer_of(replied(2), tags_file=tmp_path / "responses.tags.jsonl")
    (first, second) = (read.response.key[:16] for read in explorer.replies)
    for key, tags in (("elsewhere", ["foreign"]), (first, ["good"])):
        write_tag(explorer.tags_file, {"key": key, "template": "t", "row": "r", "tags": tags})
    assert explorer.tags == {first: ["good"]}
    shown = explorer.widget()
    shown.tags = {first: ["good"], second: ["odd"]}
    assert explorer.widget().tags == {first: ["good"], second: ["odd"]}
    assert read_tags(explorer.tags_file)["elsewhere"] == ["foreign"]


def test_a_file_of_tags_that_somebody_broke_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "responses.tags.jsonl"
    for content in ("good\n", '{"key": 1, "tags": []}\n', '{"key": "a", "tags": "good"}\n', "[]\n"):
        path.write_text(content)
        for use in (lambda: read_tags(path), lambda: write_tag(path, {"key": "a", "template": "t", "row": "r", "tags": ["x"]})):
            with pytest.raises(DataError, match=r"responses\.tags\.jsonl:1: not the tags of a reply"):
                use()
        assert path.read_text() == content


def test_exploring_fetches_no_weights(tmp_path, monkeypatch):
    "What is stored is shown without the teacher that said it."
    recorded = recorded_project(tmp_path)
    recorded.close()
    monkeypatch.setenv("ZSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zero_shot_distill.weights.pull._fetch", lambda *arguments: pytest.fail("weights were fetched"))
    project = Project("pocket_nli", prompts=definitions_dir() / "recorded_runs" / "explore" / "prompts.yaml", work_dir=tmp_path)
    assert len(project.explore("one-sentence", n=3).replies) == 3
    project.close()


def test_a_page_in_a_file_says_no_path_of_this_machine(tmp_path):
    explorer = explorer_of(replied(2), tags_file=tmp_path / "responses.tags.jsonl")
    assert str(tmp_path) not in explorer.page()
    assert str(tmp_path) not in json.dumps(explorer.data)


def test_tags_of_several_processes_are_all_kept(tmp_path):
    path = tmp_path / "responses.tags.jsonl"
    threads = [
        threading.Thread(target=write_tag, args=(path, {"key": f"k{n}", "template": "t", "row": "r", "tags": ["x"]})) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_tags(path) == {f"k{n}": ["x"] for n in range(12)}


def test_the_messages_are_those_that_were_sent(tmp_path):
    "Not what the template says now."
    project = recorded_project(tmp_path)
    explorer = explore_stored(project.task, project.templates, project.rows(), project.client())
    explorer = replace(
        explorer, templates={"one-sentence": PromptTemplate(id="one-sentence", user_message="Another? {hypothesis}", read="label-first")}
    )
    column = explorer.data["columns"].index("messages")
    assert len(explorer.replies) > 9
    for read, line in zip(explorer.replies, explorer.data["replies"], strict=True):
        assert line[column] == list(project.store.requests_of([read.response.key])[read.response.key].messages)
    project.close()


def test_component_travels_with_the_package():
    assert {path.name for path in (definitions_dir() / "explorer").iterdir()} >= {"explorer.js", "explorer.css"}
    assert "explorer/*.js" in (Path(__file__).parent.parent / "setup.py").read_text(encoding="utf-8")
