"""`zsd opro` and its parts. A scripted server stands in for a teacher: it says so in every reply, and it answers by rules that a test can count."""

import hashlib
import json
import random
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Latency, Scripted, ScriptedServer
from zsd_command import Project, environment, interrupt, is_one_line, zsd

from zero_shot_distill.prompt.candidate import Refusal, ReplyForm, normal_text, read_candidate, refusal_of
from zero_shot_distill.prompt.objective import SearchObjective, SearchScore, pareto_front
from zero_shot_distill.prompt.propose import SearchState, meta_prompt, paraphrase_prompt, reflect_prompt
from zero_shot_distill.prompt.search_result import PromptSearch
from zero_shot_distill.prompt.starter import starter_templates
from zero_shot_distill.prompt.template import load_templates
from zero_shot_distill.prompt.trajectory import read_trajectory
from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.search_comparison import confirmation_figure, trajectory_figure
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import list_tasks, load_task

TASK = load_task("pocket_nli")
ROWS = load_examples(TASK, "train")
LABEL_OF = {(row.fields["premise"], row.fields["hypothesis"]): row.label for row in ROWS}
MODEL = ("--model", "some-model", "--price-in", "2", "--price-out", "8")
SMALL = ("--task", "pocket_nli", "--candidates", "4", "--samples", "12", "--confirm-rows", "20", "--templates", "one-sentence")


def at(server: ScriptedServer) -> dict[str, str]:
    return environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")


# A scripted teacher and optimiser


def is_proposal(body: dict[str, Any]) -> bool:
    return "<prompt>" in body["messages"][-1]["content"]


def chance(*parts: object) -> float:
    "A number from 0 to 1 that depends on the parts alone, not on the order of arrival."
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 16**8


def proposes(body: dict[str, Any]) -> Scripted:
    "One of several prompts, or one of several kinds of rubbish, by the request's seed."
    number = body["seed"] % 1000
    texts = [
        f"<prompt>Read {{premise}} with care, scripted {number}. Does {{hypothesis}} follow?</prompt>",
        f"<prompt>Scripted {number}: {{premise}} Think of {{hypothesis}}</prompt>",
        "Thinking of <prompt>an older one</prompt>, better: <prompt>\nScripted {premise}\nGuess {hypothesis}\n</prompt>\nscore: 99",
        "no marks at all",
        "<prompt>only {premise}</prompt>",
        "<prompt>{premise} {hypothesis} {label}</prompt>",
        "<prompt>{premise} {hypothesis} is a contradiction. {premise}</prompt>",
    ]
    return Scripted(text=texts[int(chance("kind", body["seed"]) * len(texts))], prompt_tokens=400, completion_tokens=60)


def answers(body: dict[str, Any]) -> Scripted:
    "The right label for a share of the rows that depends on the prompt's words."
    content = body["messages"][-1]["content"]
    label = next(label for (premise, hypothesis), label in LABEL_OF.items() if premise in content and hypothesis in content)
    share = 0.9 if "with care" in content else 0.4
    said = label if chance("right", content) < share else next(other for other in TASK.labels if other != label)
    return Scripted(text=f"A scripted reason of a few words.\nAnswer: {said}", prompt_tokens=80, completion_tokens=20)


def script(body: dict[str, Any], n: int) -> Scripted:
    return proposes(body) if is_proposal(body) else answers(body)


def asked_twice(server: ScriptedServer) -> list[str]:
    return [entry.content for entry in server.ledger.values() if entry.attempts > 1]


def requests_of(bodies: Sequence[dict[str, Any]]) -> list[Request]:
    "Requests as the store keeps them."
    return [
        Request.build(body["model"], body["messages"], **{k: v for k, v in body.items() if k not in {"model", "messages"}})
        for body in bodies
    ]


def missing_in(folder: Path, asked: Sequence[Request]) -> set[str]:
    "Keys of the requests without a stored reply."
    with ResponseStore(folder / "zsd-work" / "responses.sqlite") as store:
        return {request.key for request in store.missing(asked)}


def trajectory(folder: Path) -> Path:
    (path,) = (folder / "zsd-work" / "searches").glob("*/trajectory.jsonl")
    return path


# The search as a whole


def test_a_search_finds_refuses_and_confirms(tmp_path):
    with ScriptedServer(script) as server:
        done = zsd(tmp_path, "opro", *SMALL, *MODEL, "--iterations", "4", "--json", env=at(server))
        assert done.status == 0, done.err
        assert asked_twice(server) == []
        n_proposals = sum(map(is_proposal, server.bodies))
        report = json.loads(done.out)
        assert n_proposals == 4 * 4
        assert report["n_questions"] == len(server.bodies)
        assert len({body["seed"] for body in server.bodies if is_proposal(body)}) == n_proposals
        assert {body["temperature"] for body in server.bodies if is_proposal(body)} == {1.1}
        again = zsd(tmp_path, "opro", *SMALL, *MODEL, "--iterations", "4", "--json", env=at(server))
        assert json.loads(again.out) == report
        assert len(server.bodies) == report["n_questions"]
    assert sum(report["refused"].values()) + len(report["tried"]) - 2 == n_proposals
    assert {"no_marks", "missing", "unknown", "doubled", "repeated"} & set(report["refused"])
    # The one with the words that this server rewards, confirmed on rows of other premises.
    assert "with care" in report["chosen"]["user_message"]
    assert report["chosen"]["read"] == "label-last"
    assert report["chosen"]["user_message"].endswith(starter_templates(TASK)["reason-first"].user_message.rpartition("\n\n")[2])
    confirmed = report["end"]["confirmation"]
    explained = {id: outcomes.count(2) for id, outcomes in confirmed["outcomes"].items()}
    assert report["incumbent"] == confirmed["incumbent"]
    assert explained[report["chosen"]["id"]] >= explained[confirmed["incumbent"]]
    assert len(confirmed["groups"]) == 20
    gain = report["end"]["gain"]
    assert gain["format"]["value"] + gain["label"]["value"] == pytest.approx(gain["total"]["value"])
    about, _, _ = read_trajectory(trajectory(tmp_path))
    premises = {row.fields["premise"] for row in ROWS if row.id in about["rows"]}
    assert premises.isdisjoint(confirmed["groups"])
    # The file is one that every command takes.
    assert next(iter(load_templates(TASK, tmp_path / report["prompts"]))) == report["chosen"]["id"]
    shown = zsd(tmp_path, "templates", "pocket_nli", "--prompts", report["prompts"])
    assert report["chosen"]["id"] in shown.out


def test_what_is_printed(tmp_path):
    with ScriptedServer(script) as server:
        done = zsd(tmp_path, "opro", *SMALL, *MODEL, "--iterations", "2", env=at(server) | {"COLUMNS": "80"})
    assert done.status == 0, done.err
    most, least = re.search(r"at most ([\d,]+) questions.*at least, for one step: ([\d,]+) questions", done.err).groups()
    assert (most, least) == ("188", "136")  # 2 * 12 + steps * (4 + 4 * 12) + 3 * 20
    assert len(server.bodies) <= 188
    assert "headroom of " in done.err
    for part in (
        "which flatters what was chosen",
        "proposals were refused",
        "Stopped: all iterations are done",
        "--prompts",
        "incumbent",
        "format: ",
        "\nNext: zsd figures prompt_search --task pocket_nli --runs zsd-work draws the search",
    ):
        assert part in done.out
    search = PromptSearch.read(trajectory(tmp_path).parent)
    assert max(map(len, repr(search).splitlines()[1:4])) <= 80
    assert list(search.frame["step"])[:2] == [0, 0]
    figures = [draw({"opro": search}) for draw in (trajectory_figure, confirmation_figure)]
    assert [len(figure.axes) for figure in figures] == [1, 1]


@pytest.mark.parametrize("by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_anywhere_it_goes_on_with_the_same_trajectory(tmp_path, by):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    arguments = ("opro", *SMALL, *MODEL, "--iterations", "4")
    with ScriptedServer(script) as server:
        assert zsd(whole, *arguments, env=at(server)).status == 0
    stops = random.Random(by)
    with ScriptedServer(script, latency=Latency(0.05)) as server:
        reached, n_before, stored = 0, 0, set()
        for _ in range(2):
            reached += stops.randrange(20, 80)
            done = interrupt(cut, lambda process, n=reached: len(server.bodies) >= n, *arguments, by=by, env=at(server))
            assert done.status != 0
            if by == signal.SIGINT:
                assert "the same command goes on from there" in done.last_line
            # What was on its way when the process was killed may be asked again; nothing that is stored is.
            asked = requests_of(server.bodies)
            assert not stored & {request.key for request in asked[n_before:]}
            stored |= {request.key for request in asked} - missing_in(cut, asked)
            n_before = len(server.bodies)
        assert stored
        completed = zsd(cut, *arguments, env=at(server))
        assert completed.status == 0, completed.err
        assert not stored & {request.key for request in requests_of(server.bodies[n_before:])}
        assert len(asked_twice(server)) < len(server.ledger) / 2
    *steps, end = trajectory(cut).read_bytes().splitlines()
    *uncut_steps, uncut_end = trajectory(whole).read_bytes().splitlines()
    assert steps == uncut_steps
    ends = [json.loads(line)["ended"]["confirmation"] for line in (end, uncut_end)]  # which say, too, how long the replies took
    assert ends[0]["outcomes"] == ends[1]["outcomes"]


def test_budgets_are_kept_and_leave_enough_for_the_confirmation(tmp_path):
    with ScriptedServer(script) as server:
        done = zsd(tmp_path, "opro", *SMALL, *MODEL, "--budget-queries", "200", "--json", env=at(server))
        assert done.status == 0, done.err
        report = json.loads(done.out)
        assert (report["end"]["why"], report["n_questions"] <= 200, len(server.bodies)) == ("BUDGET_QUERIES", True, report["n_questions"])
        assert report["end"]["confirmation"]
    other = tmp_path / "usd"
    other.mkdir()
    with ScriptedServer(script) as server:
        done = zsd(other, "opro", *SMALL, *MODEL, "--budget-usd", "0.3", "--plateau", "50", "--iterations", "200", "--json", env=at(server))
        assert done.status == 0, done.err
        report = json.loads(done.out)
        charged = sum(entry.prompt_tokens * 2 + entry.completion_tokens * 8 for entry in server.ledger.values()) / 1e6
        assert report["end"]["why"] == "BUDGET_USD"
        assert report["end"]["confirmation"]
        assert charged == pytest.approx(report["cost_usd"])
        assert charged <= 0.3


def test_it_goes_on_while_the_optimiser_is_useless_and_stops_after_three_steps(tmp_path):
    def useless(body: dict[str, Any], n: int) -> Scripted:
        return Scripted(text="no idea") if is_proposal(body) else answers(body)

    with ScriptedServer(useless) as server:
        done = zsd(tmp_path, "opro", *SMALL, *MODEL, "--quiet", env=at(server))
        is_one_line(done, 2, "some-model gave nothing that could be tried in 3 steps", "12 no prompt between the marks")
        assert sum(map(is_proposal, server.bodies)) == 12

    def useless_later(body: dict[str, Any], n: int) -> Scripted:
        "After the first templates, always the same."
        text = "<prompt>Scripted {premise} with care {hypothesis}</prompt>"
        return Scripted(text=text) if is_proposal(body) else answers(body)

    other = tmp_path / "later"
    other.mkdir()
    with ScriptedServer(useless_later) as server:
        done = zsd(other, "opro", *SMALL, *MODEL, "--json", env=at(server))
        assert done.status == 0, done.err
        report = json.loads(done.out)
    assert (report["end"]["why"], report["refused"], report["n_steps"]) == ("UNUSABLE", {"repeated": 15}, 4)


@pytest.mark.slow  # test_opro_peers.py has the other proposers
def test_another_optimiser_and_other_proposers(tmp_path):
    (tmp_path / "other.yaml").write_text("model: other-model\nsampling: {max_completion_tokens: 900}\nprice: {input: 1, output: 1}\n")
    with ScriptedServer(script) as server:
        for proposer in ("opro", "paraphrase", "reflect", "starters"):
            del server.bodies[:]
            arguments = ("--iterations", "3", "--proposer", proposer, "--optimiser", "other.yaml", "--json")
            done = zsd(tmp_path, "opro", *SMALL, *MODEL, *arguments, env=at(server))
            assert done.status == 0, done.err
            asked = [body for body in server.bodies if is_proposal(body)]
            assert {body["model"] for body in asked} <= {"other-model"}
            assert all("max_tokens" not in body and body["max_completion_tokens"] == 900 for body in asked)
            assert bool(asked) == (proposer != "starters")
            if proposer == "reflect":
                assert any("the model's reply: A scripted reason" in body["messages"][0]["content"] for body in asked)
        report = json.loads(done.out)
        assert report["end"]["why"] == "EXHAUSTED"
        assert {line["template"] for line in report["tried"]} > {"starters-1-1", "starters-1-3", "starters-2-1"}


# Bad input


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--proposer", "genetic"), ["no proposer 'genetic'; there are opro, paraphrase, reflect, starters"]),
        (("--preset", "mine"), ["--preset mine: use thesis or paper"]),
        (("--objective", "wit"), ["no objective 'wit'"]),
        (("--budget-queries", "50"), ["a budget of 50 questions is below one step", "are needed"]),
        (("--budget-usd", "0.001"), ["a budget of $0.0010 is below one step"]),
        (("--meta-prompt", "meta.txt"), ["meta.txt: the meta-prompt lacks $placeholders"]),
        (("--meta-prompt", "none.txt"), ["none.txt: the meta-prompt cannot be read"]),
        (("--base", "one-sentence-more"), ["no template 'one-sentence-more'"]),
        (("--base", "can-we-tell", "--templates", "can-we-tell"), ["candidates keep the paragraph that says how to reply"]),
        (("--usd-price", "1", "--confirm-rows", "1000"), ["rows"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, parts):
    (tmp_path / "meta.txt").write_text("Tried: $history")
    with ScriptedServer(script) as server:
        done = zsd(tmp_path, "opro", *SMALL, *MODEL, "--quiet", *arguments, env=at(server))
        is_one_line(done, 2, *parts)
        assert server.bodies == []


def test_a_task_without_labels_is_refused(tmp_path):
    project = Project(tmp_path)
    for rows in project.rows.values():
        for row in rows:
            row["label"] = ""
    project.write()
    with ScriptedServer(script) as server:
        done = zsd(tmp_path, "opro", "--task", "my_task.yaml", *MODEL, "--samples", "6", "--confirm-rows", "6", "--quiet", env=at(server))
        is_one_line(done, 2, "label")
        assert server.bodies == []


# Its parts


@pytest.mark.parametrize("name", list_tasks())
def test_the_starter_templates_of_every_task_pass_and_keep_their_form(name):
    task = load_task(name)
    for template in starter_templates(task).values():
        form = ReplyForm.of(template)
        text, below = form.text_of(template), form.placeholders_below()
        assert refusal_of(text, task, [], below=below) is None
        # Each placeholder of the row stands once: above the way to reply, or below it.
        assert refusal_of(text, task, []) is (Refusal.MISSING if set(below) & set(task.fields) else None)
        assert all(refusal_of(f"{text} {{{name}}}", task, [], below=below) is Refusal.DOUBLED for name in task.fields)
        made = form.template("mine", text)
        assert (made.user_message, made.reading) == (template.user_message, template.reading)
        assert form.cut(f"{text}\n\n{form.words}") == text


ROW_LAST = """Is the hypothesis so?

Say why in one short sentence. Then write a last line that reads "Answer: " and the label.

Premise: {premise}
Hypothesis: {hypothesis}"""


def test_what_follows_the_way_to_reply_stays_with_it():
    "A template whose row ends the message: candidates are the words above, and the optimiser is told that the row stands there."
    form = ReplyForm.of(starter_templates(TASK)["reason-first"].model_copy(update={"id": "row-last", "user_message": ROW_LAST}))
    assert (form.text_of(form.base), form.row, form.placeholders_below()) == ("Is the hypothesis so?", "", ("premise", "hypothesis"))
    assert form.complete("Read both.") == "Read both."
    assert form.template("mine", "Read both.").user_message == ROW_LAST.replace("Is the hypothesis so?", "Read both.")
    for text, refusal in {
        "Read both. {premise}": Refusal.DOUBLED,
        "Read both. {label}": Refusal.UNKNOWN,
        "Read both. {": Refusal.BRACES,
        "Read both.": None,
    }.items():
        assert refusal_of(text, TASK, [], below=form.placeholders_below()) is refusal
    state = SearchState(TASK, form, 1, 8, [("Is the hypothesis so?", 0.5)], ROWS[:2])
    for text in (meta_prompt(state), paraphrase_prompt(state), reflect_prompt(state)):
        assert "The row stands below already: write no placeholder." in text
        assert "The row is put below" not in text
    # A template with a way to reply of its own is checked as it stands, whatever the search keeps.
    whole = starter_templates(TASK)["label-first"]
    assert form.placeholders_below(whole) == ()
    assert refusal_of(form.text_of(whole), TASK, [], below=form.placeholders_below(whole)) is None


def test_a_search_keeps_a_row_that_ends_the_message(tmp_path):
    def row_last(body: dict[str, Any], n: int) -> Scripted:
        if not is_proposal(body):
            return answers(body)
        assert "The row stands below already" in body["messages"][-1]["content"]
        return Scripted(text=f"<prompt>Scripted {body['seed']}: read both with care.</prompt>", prompt_tokens=400, completion_tokens=60)

    template = {"id": "row-last", "user_message": ROW_LAST, "read": "label-last", "after": "Answer:"}
    (tmp_path / "prompts.yaml").write_text(json.dumps({"task": "pocket_nli", "templates": [template]}))
    small = [*SMALL[:-1], "row-last", "--prompts", "prompts.yaml", "--base", "row-last", "--iterations", "1"]
    with ScriptedServer(row_last) as server:
        done = zsd(tmp_path, "opro", *small, *MODEL, "--json", env=at(server))
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["refused"] == {}
    assert len(report["tried"]) == 5
    assert re.fullmatch(r"Scripted \d+: read both with care\.", report["chosen"]["user_message"].removesuffix(ROW_LAST.partition("?")[2]))


def test_no_text_slips_through_with_a_fault():
    "Random texts of parts: whatever is not refused shows every field once and nothing of the rows that were shown."
    rng = random.Random(11)
    shown = ROWS[:3]
    parts = [
        "{premise}",
        "{hypothesis}",
        "{label}",
        "{",
        "}",
        "{{",
        "}}",
        "Is it so?",
        "entailment, neutral or contradiction",
        "neutral",
        "\n\n",
    ]
    parts += [*shown[0].fields.values(), shown[1].fields["premise"].upper(), "word " * 200]
    n_kept = 0
    for _ in range(3000):
        text = " ".join(rng.choices(parts, weights=[9, 9, 1, 1, 1, 1, 1, *[5] * 2, 1, 5, *[1] * 4], k=rng.randrange(1, 9)))
        if (refusal := refusal_of(text, TASK, shown, {normal_text("{premise} {hypothesis}")}, 800)) is not None:
            assert isinstance(refusal, Refusal)
            continue
        n_kept += 1
        filled = text.format(premise="PPP", hypothesis="HHH")
        assert (filled.count("PPP"), filled.count("HHH"), len(text) <= 800) == (1, 1, True)
        assert not any(value.casefold() in text.casefold() for row in shown for value in row.fields.values())
        named = {label for label in TASK.labels if label in normal_text(text)}
        assert named in (set(), set(TASK.labels)) or not named & {row.label for row in shown}
    assert n_kept > 50


def test_answers_of_other_kinds_of_tasks():
    cqa, svamp = load_task("cqa"), load_task("svamp")
    fields = {name: f"some words for {name}" for name in cqa.fields}
    choice = type(ROWS[0])("1", fields | {"choice_b": "river bank"}, "river bank", None)
    good = " ".join(f"{{{name}}}" for name in cqa.fields)
    assert refusal_of(good, cqa, [choice]) is None
    assert refusal_of(f"{good} Think of a river bank!", cqa, [choice]) is Refusal.ANSWER
    sum_row = type(ROWS[0])("1", {name: "Ann has some apples and gets others from Tom" for name in svamp.fields}, "( 8 - 2 )", None)
    good = " ".join(f"{{{name}}}" for name in svamp.fields)
    assert refusal_of(f"{good} In 2 steps.", svamp, [sum_row]) is None
    assert refusal_of(f"{good} As in 6 apples.", svamp, [sum_row]) is Refusal.ANSWER


def test_the_last_marked_text_counts():
    assert read_candidate("<prompt>old</prompt> then <PROMPT>\n`new`\n</PROMPT>") == "new"
    assert read_candidate("<prompt>an end without its mark") == "an end without its mark"
    for reply in ("", "<prompt>", "<prompt></prompt>", "</prompt><prompt>", "<prompt>a beginning <prompt>and another</prompt>"):
        assert read_candidate(reply) is Refusal.NO_MARKS


def test_a_proposal_that_repeats_itself_is_refused():
    "As a small optimiser wrote it."
    good = "Premise: {premise}\nHypothesis: {hypothesis}"
    said = "John is reading a book on the beach."
    assert refusal_of(f"{said} {said}\n\n{good}", TASK, []) is None
    assert refusal_of(f"{said} {said} {said}\n\n{good}", TASK, []) is Refusal.LOOPED
    assert refusal_of(f"Think! Think! Think!\n\n{good}", TASK, []) is None


def test_the_meta_prompt_shows_the_best_last_in_buckets():
    form = ReplyForm.of(starter_templates(TASK)["reason-first"])
    history = [("{premise} first {hypothesis}", -0.2), ("{premise} $costs {hypothesis}", 0.333), ("{premise} best {hypothesis}", 0.987)]
    state = SearchState(TASK, form, 1, 8, history, ROWS[:3], n_buckets=20)
    text = meta_prompt(state)
    assert re.findall(r"score: (\d+)", text) == ["0", "7", "20"]
    assert text.index("first") < text.index("$costs") < text.index("best {hypothesis}")
    for row in ROWS[:3]:
        assert f"hypothesis: {row.fields['hypothesis']}\nright answer: {row.label}" in text
    assert "none: it was right for all rows" in reflect_prompt(state)


def test_a_template_that_is_best_in_one_respect_stays_on_the_front():
    rng = random.Random(5)

    def score() -> SearchScore:
        marks = ["".join(rng.choices("01", k=10)) for _ in range(2)]
        return SearchScore(*marks, 0, 0, rng.uniform(5, 60), 100, 100, rng.uniform(0.001, 0.01))

    for _ in range(50):
        scores = {str(number): score() for number in range(8)}
        front = pareto_front(scores)
        assert (
            max(scores, key=lambda id: (scores[id].accuracy, scores[id].explanation_rate, -scores[id].cost_usd)) in front or len(front) > 0
        )
        assert min(scores, key=lambda id: scores[id].cost_usd) in front
        best = max(SearchObjective().value(one) for one in scores.values())
        assert best <= 1
