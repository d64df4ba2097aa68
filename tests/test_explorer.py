"The explorer in a real browser: hostile text, many rows, two prompts side by side, tags by keyboard; the command that serves it."

import json
import re
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from accessibility import violations
from browser import needs_browser

from zero_shot_distill.core.definition import DataError
from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.entities.entity import Entity, entities_text
from zero_shot_distill.project import Project, recorded_project
from zero_shot_distill.prompt.fault import ReadFault
from zero_shot_distill.prompt.replies import read_each, unanswered
from zero_shot_distill.prompt.template import PromptTemplate
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.study.explore import Explorer, explore_stored, read_tags, serve_explorer, tags_path, write_tag
from zero_shot_distill.task.task import Example, load_task

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
        views = page.locator(".tabs button").all_inner_texts()
        assert len(views) == 5
        for view in views:
            page.click(f".tabs button:text-is('{view}')")
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


def test_a_student_is_found_by_its_id_wherever_it_was_trained(tmp_path, monkeypatch, capsys):
    "By `zsd train`, by a pipeline of `zsd run`; by its folder; two of the same id are told."
    from zero_shot_distill.cli.explore import explore
    from zero_shot_distill.student.measure import PredictedRow, PredictedRows

    monkeypatch.chdir(tmp_path)
    project = recorded_project("zsd-work")
    row = project.rows(1)[0]
    project.close()
    said = PredictedRows([PredictedRow(row.id, dict(row.fields), row.label, None, "neutral", None, "from the pipeline", False, "")])
    prompts = definitions_dir() / "recorded_runs" / "explore" / "prompts.yaml"

    def explored(run: str) -> str:
        explore(task="pocket_nli", prompts=prompts, split="train", run=run, as_json=True, sampling="max_tokens: 100")
        return capsys.readouterr().out

    said.write(Path("zsd-work/demo/runs/mine-1.predictions.jsonl"))
    assert "from the pipeline" in explored("mine-1")
    Path("zsd-work/demo/students/mine-1").mkdir(parents=True)
    assert "from the pipeline" in explored("zsd-work/demo/students/mine-1")
    with pytest.raises(DataError, match=r"zsd-work/runs/other\.predictions\.jsonl: no such file"):
        explored("other")
    said.write(Path("zsd-work/runs/mine-1.predictions.jsonl"))
    with pytest.raises(DataError, match="2 students have that id; name one of zsd-work/runs/mine-1"):
        explored("mine-1")


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


# ------------------------------------------------------------------------------------------------------------- entities


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Explorer:
    "Recorded replies about entities: two prompts, 16 sentences."
    project = recorded_project(tmp_path_factory.mktemp("names"), "entities")
    explorer = project.explore("candidates", "inline", n=16, seed=0)
    yield explorer
    project.close()


@needs_browser
def test_entities_are_marked_beside_the_gold_ones(opened):
    task = load_task("pocket_names")
    (field,) = task.fields
    sentence = "José Ibáñez flew home to Córdoba."
    gold = entities_text([Entity.of(sentence, 0, 11, "person"), Entity.of(sentence, 25, 32, "place")])
    row = Example("row-0", {field: sentence}, gold, None)
    text = json.dumps([{"text": "Josep Ibáñez", "type": "person"}, {"text": "Córdoba", "type": "place"}], ensure_ascii=False)
    template = PromptTemplate(id="list", user_message=f"{{{field}}}", read="json")
    (read,) = read_each([(template, row, Response("a" * 64, text, "stop", 1, 1, 0.1, 1, "2026-11-28T12:00:00+00:00", "m"))], task)
    page = opened(explorer_of([read], task=task, templates={"list": template}))
    row = page.locator("tbody tr")
    gold, said = row.locator("td").nth(1), row.locator("td").nth(2)
    assert gold.locator("mark").all_inner_texts() == ["José Ibáñezperson", "Córdobaplace"]
    # The type is told by words, and so is what is wrong: colours only repeat it.
    assert said.locator(".sentence mark").all_inner_texts() == ["José Ibáñezperson ✗ missed", "Córdobaplace ✓"]
    assert said.locator(".refused").inner_text() == "refused: Josep Ibáñez (person), not in the text"
    assert row.locator("td").nth(3).inner_text().split("\n") == ["✓ 1 right", "✗ 1 missed"]
    row.locator("b").first.click()
    assert "Josep Ibáñez\tperson\tnot in the text" in page.inner_text("dialog")


@needs_browser
def test_every_count_of_entities_leads_to_its_replies(opened, names):
    "The counts of the error table are those of `compare_entities`, and a click shows the replies that they count."
    lines = [dict(zip(names.data["columns"], line, strict=True)) for line in names.data["replies"]]
    found = {}
    for line in lines:
        for one in line["entities"] or ():
            kind = one["kind"]
            found.setdefault((kind, (one["gold"] or one["said"])[2]), []).append(line["key"])
    page = opened(names, "view=words")
    words = {"wrong_type": "wrong type", "wrong_place": "wrong boundary", "wrong_both": "wrong type and boundary"}
    assert len(found) > 8
    for (kind, type), keys in found.items():
        page.click("button:text-is('Words and errors')")
        page.click(f"button[aria-label='{len(keys)} {words.get(kind, kind)}, {type}']")
        assert page.locator("tbody tr").count() == min(len(set(keys)), 50), (kind, type)
        page.click("button:text-is('show all')")
    page.click("button:text-is('Words and errors')")
    surplus = [key for (kind, _), keys in found.items() if kind == "surplus" for key in keys]
    assert f"surplus: {len(surplus)} entities in {len(set(surplus))} replies" in page.inner_text(".body")
    assert page.locator("article", has_text="surplus:").last.locator("section").count() == 3
    page.click("button:text-is('Not read, refused')")
    refused = [(line["key"], fault) for line in lines for _, _, fault in line["refused"]]
    for fault in {fault for _, fault in refused}:
        keys = [key for key, name in refused if name == fault]
        mentions, replies = (f"{n} {word}" for n, word in ((len(keys), "mention"), (len(set(keys)), "repl")))
        assert re.search(rf"refused, {fault}: {mentions}s? in {replies}", page.inner_text(".body"))
    page.select_option("select[aria-label=refused]", "not in the text")
    page.click("button:text-is('Replies')")
    assert page.locator("tbody tr").count() == len({key for key, fault in refused if fault == "not in the text"})


@needs_browser
def test_entity_views_are_no_wider_than_the_screen(opened, names):
    page = opened(names)
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for view in ("Replies", "Side by side", "Not read, refused", "Words and errors"):
            page.click(f"button:text-is('{view}')")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view


@needs_browser
def test_hostile_words_of_entities_are_text(opened):
    "In a sentence, a type, a mention, a reason, an invented mention, what a student found; marks are at their places behind an emoji."
    from zero_shot_distill.student.measure import PredictedRow

    hostile_type = "<img src=x onerror=1>"
    task = load_task("pocket_names").model_copy(update={"types": {hostile_type: "any", "person": "one"}})
    field = next(iter(task.fields))
    sentence = f"👍👍 {HOSTILE.replace(chr(0), '')} Ada Byron <b>waits</b>"
    at = sentence.index("Ada")
    gold = entities_text([Entity.of(sentence, at, at + 9, "person")])
    said = entities_text([Entity.of(sentence, 3, 12, hostile_type, HOSTILE)])
    row = Example("row-0", {field: sentence}, gold, None)
    text = json.dumps(
        [
            {"text": "Ada Byron", "type": "person", "why": HOSTILE},
            {"text": HOSTILE + " invented", "type": hostile_type},
            {"text": "waits", "type": hostile_type},
        ]
    )
    template = PromptTemplate(id="list", user_message=f"{{{field}}}", read="json")
    (read,) = read_each([(template, row, Response("a" * 64, text, "stop", 1, 1, 0.1, 1, "2026-11-28T12:00:00+00:00", "m"))], task)
    assert read.reply.refused
    student = PredictedRow("row-0", dict(row.fields), gold, None, said, None, None, False, "")
    page = opened(explorer_of([read], task=task, templates={"list": template}, said={"row-0": student}))
    assert page.locator("td").nth(2).locator("mark").first.inner_text() == "Ada Byronperson ✓"
    for view in ("Side by side", "Not read, refused", "Words and errors", "Tags", "Replies"):
        page.click(f"button:text-is('{view}')")
        assert not page.query_selector("img, script[src]")
    page.locator("tbody tr b").first.click()
    assert hostile_type in page.locator("dialog").inner_text()
    assert not page.query_selector("img, script[src], .sentence b")
    assert page.title() != "run"


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("shown", "width", "colours"), [("texts", 1280, "light"), ("names", 390, "dark")])
def test_each_view_keeps_to_wcag_aa_as_far_as_axe_can_tell(opened, names, shown, width, colours):
    says = ["👍 Neutral. It is not said there at all.", "Contradiction, since nobody waits there today.", "Hard to say."]
    texts = explorer_of(replied(9, lambda place: says[place % 3], (TELL, GUESS), lambda place: "neutral" if place % 2 else "entailment"))
    page = opened({"texts": texts, "names": names}[shown])
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=colours)
    views, found = page.locator(".tabs button").all_inner_texts(), set()
    assert len(views) == 5
    for view in views:
        page.click(f".tabs button:text-is('{view}')")
        found |= {(view, *fault) for fault in violations(page)}
    page.click("button:text-is('Replies')")
    page.keyboard.press("Enter")
    found |= {("one reply", *fault) for fault in violations(page)}
    assert sorted(found) == []


def contrast(one: str, other: str) -> float:
    "Of WCAG 2: from 1 to 21."

    def luminance(colour: str) -> float:
        parts = [int(colour.lstrip("#")[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        return sum(
            share * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
            for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
        )

    lower, upper = sorted((luminance(one), luminance(other)))
    return (upper + 0.05) / (lower + 0.05)


def test_colours_of_entities_can_be_read():
    "Words on each colour of a type AA, its frame against its ground as a sign: 3 to 1."
    style = (definitions_dir() / "explorer" / "explorer.css").read_text(encoding="utf-8")
    found = re.findall(r"--type: (#\w{6}); --soft-type: (#\w{6})", style)
    assert len(found) == 8
    for frame, ground in found:
        assert contrast("#000000", ground) >= 4.5
        assert contrast(frame, ground) >= 3
        assert contrast("#8a3b00", ground) >= 3  # of what is wrong


# --------------------------------------------------------------------------------------------------------------- widget

MODEL = """
class Model {
  constructor(values) { this.values = values; this.listeners = {}; this.used = new Set(); this.n_saved = 0; }
  get(name) { return this.values[name]; }
  set(name, value) { this.values[name] = value; (this.listeners[`change:${name}`] ?? []).forEach((listener) => listener()); }
  save_changes() { this.n_saved++; }
  on(name, listener) { (this.listeners[name] ??= []).push(listener); }
  off(name, listener) { this.listeners[name] = (this.listeners[name] ?? []).filter((one) => one !== listener); }
}
"""


def test_the_widget_asks_for_nothing_but_its_model():
    "What VS Code and Colab give a widget: its own module, the model, an element. No address, no import, no page around it."
    script = (definitions_dir() / "explorer" / "explorer.js").read_text(encoding="utf-8")
    style = (definitions_dir() / "explorer" / "explorer.css").read_text(encoding="utf-8")
    for text in (script, style):
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|@import|url\(", text)
    assert not re.search(
        r"\bimport\b|\brequire\(|\bimportScripts|\bWebSocket|XMLHttpRequest|\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write",
        script,
    )
    widget = script[script.index("export default") :]
    assert set(re.findall(r"\bmodel\.(\w+)", widget)) == {"get", "set", "save_changes", "on", "off"}
    assert not re.search(r"\b(fetch|localStorage|location|document|window|alert)\b", widget)
    assert script.count("fetch(") == 1  # of the page that `zsd explore` serves


@needs_browser
def test_two_widgets_in_a_page_and_a_notebook_that_is_run_again(browser, tmp_path):
    "Each has its own tags and keys; two views of one widget have the same; a view that is taken away listens no more."
    from base64 import b64encode

    script = (
        (definitions_dir() / "explorer" / "explorer.js")
        .read_text(encoding="utf-8")
        .replace("export default", "const widget =")
        .replace("export ", "")
    )
    packed = [b64encode(explorer_of(replied(n), title=f"{n} replies").packed()).decode() for n in (2, 3)]
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    path = tmp_path / "notebook.html"
    path.write_text(f"""<meta charset="utf-8"><div id="a"></div><div id="b"></div><div id="c"></div><script type="module">{MODEL}{script}
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer);
const models = {json.dumps(packed)}.map((data) => new Model({{ data: bytes(data), tags: {{}}, saved_to: "", start: "" }}));
const place = (id) => document.getElementById(id);
const removes = [];
for (const [model, id] of [[models[0], "a"], [models[0], "b"], [models[1], "c"]]) removes.push(await widget.render({{ model, el: place(id) }}));
Object.assign(window, {{ models, removes, widget, place }});
</script>""")
    page.goto(path.as_uri())
    page.wait_for_function("window.removes")

    def tag(id: str, word: str) -> None:
        page.locator(f"#{id}").focus()
        page.keyboard.press("t")
        page.keyboard.type(word)
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")

    def tags(id: str) -> list[str]:
        return page.locator(f"#{id} tbody .tag").all_inner_texts()

    tag("a", "good")
    assert (tags("a"), tags("b"), tags("c")) == (["good"], ["good"], [])
    page.locator("#b").focus()
    page.keyboard.press("j")
    tag("b", "odd")  # does not undo what the other view gave
    assert (tags("a"), tags("b"), tags("c")) == (["good", "odd"], ["good", "odd"], [])
    tag("c", "other")
    assert tags("a") == ["good", "odd"]
    assert page.evaluate("models.map((model) => Object.values(model.get('tags')).flat())") == [["good", "odd"], ["other"]]
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    # The cell is run again: the old view goes, the new one has the tags.
    page.evaluate("removes[0]()")
    assert page.locator("#a *").count() == 0
    assert page.evaluate("models[0].listeners['change:tags'].length") == 1
    page.evaluate("widget.render({ model: models[0], el: place('a') })")
    page.locator("#a tbody tr").first.wait_for()
    assert tags("a") == ["good", "odd"]
    page.locator("#a").focus()
    page.keyboard.press("1")  # takes the first reply's tag away
    assert tags("b") == tags("a") == ["odd"]
    page.close()
    assert not faults


def test_where_no_widget_is_drawn_the_text_says_what_to_do_and_colab_is_told_to_draw_it(monkeypatch):
    "Colab is not here: a module in its place, which says that its manager of widgets was switched on."
    from anywidget import _util

    explorer = explorer_of(replied(2))
    shown, metadata = explorer._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/plain"} == shown.keys()
    assert ".in_page() shows it where no widget is drawn" in shown["text/plain"]
    assert metadata == {}
    switched_on = []
    colab = SimpleNamespace(
        enable_custom_widget_manager=lambda: switched_on.append(True), _widgets=SimpleNamespace(_installed_url="https://colab.example/1")
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    _util.enable_custom_widget_manager_once.cache_clear()
    _, metadata = explorer._repr_mimebundle_()
    assert switched_on == [True]
    assert "custom_widget_manager" in str(metadata)
