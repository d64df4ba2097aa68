"`zsd lint` on annotations of entities, and on the prompts that they were made with: what is planted is found, and nothing else."

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, zsd

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.entities.entity import Entity, entities_text
from zero_shot_distill.prompt.starter import write_starters
from zero_shot_distill.prompt.template import load_templates, render
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.study.findings import Fault, Finding
from zero_shot_distill.study.lint import lint
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

Row = dict[str, Any]
NAMES = ("Ada Byron", "Mary O'Neil", "José Pérez")


def annotated(n: int, split: str) -> list[Row]:
    "Rows as `zsd annotate` leaves them, the teacher right in all of them."
    rows = []
    for i in range(n):
        text = f"{NAMES[i % 3]} went from town {i} to the {split} station."
        label = entities_text([Entity.of(text, 0, len(NAMES[i % 3]), "PER")])
        why = f"{NAMES[i % 3]} (PER): the name of somebody in sentence {i}"
        rows.append(
            {"id": f"{split}-{i}", "input": text, "gold": label, "label": label, "rationale": why, "label_error": "", "rationale_error": ""}
        )
    return rows


def without_reply(rows: list[Row], n: int, why: str = "no response: the budget has ended") -> list[Row]:
    return [row | {"label": None, "rationale": None, "label_error": why, "rationale_error": why} for row in rows[:n]] + rows[n:]


TRAIN, VALID = annotated(40, "train"), annotated(20, "valid")


@pytest.mark.parametrize(
    ("splits", "wanted", "ids"),
    [
        ({"train": TRAIN, "valid": VALID}, None, []),
        # Of half of the rows the teacher gave no reason; of others it named nothing, with a note or without one.
        ({"train": [row | {"rationale": None} if n % 2 else row for n, row in enumerate(TRAIN)]}, None, []),
        ({"train": [row | {"label": "[]", "rationale": None} if n % 2 else row for n, row in enumerate(TRAIN)]}, None, []),
        ({"train": TRAIN, "valid": [*VALID, TRAIN[3] | {"id": "again"}]}, Fault.SHARED_ROWS, ["again"]),
        ({"train": [row | {"teacher": "a" if n else "b"} for n, row in enumerate(TRAIN)]}, Fault.MIXED_TEACHERS, ["train-0"]),
        ({"train": without_reply(TRAIN, 3)}, Fault.UNANSWERED, ["train-0", "train-1", "train-2"]),
        ({"train": without_reply(TRAIN, 3, "the list breaks off")}, None, []),  # a reply that cannot be read is one
        ({"train": without_reply(annotated(300, "train"), 2)}, None, []),
        ({"train": without_reply(annotated(300, "train"), 4)}, Fault.UNANSWERED, [f"train-{i}" for i in range(4)]),
        ({"train": [row | {"rationale": "a name"} for row in TRAIN]}, Fault.PLACEHOLDER, [row["id"] for row in TRAIN]),
    ],
)
def test_faults_in_annotations_of_entities(splits, wanted, ids, tmp_path):
    folder = tmp_path / "annotations" / "names-0123456789ab"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [(one.fault, list(one.rows)) for one in lint([tmp_path]).findings]
    assert found == ([(wanted, ids)] if wanted else [])


def define(folder: Path, order: str = "train valid test", n_shared: int = 0) -> Path:
    "A task of one's own, with prompts beside its definition; the first training sentences stand in the test, too."
    shutil.copytree(definitions_dir() / "pocket_names", folder / "rows", ignore=shutil.ignore_patterns("*.md"))
    content = yaml.safe_load((definitions_dir() / "tasks" / "pocket_names.yaml").read_text(encoding="utf-8"))
    content |= {"name": "mine", "splits": {split: f"rows/{split}.jsonl" for split in order.split()}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    write_starters(load_task(folder / "mine.yaml"), "mine.yaml")
    rows = [json.loads(line) for line in (folder / "rows" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    with (folder / "rows" / "test.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row | {"id": f"shared-{n}"}, ensure_ascii=False) + "\n" for n, row in enumerate(rows[:n_shared]))
    return folder / "mine.yaml"


def of_fault(found: tuple[Finding, ...], fault: Fault) -> list[Finding]:
    return [one for one in found if one.fault == fault]


def test_prompts_whose_examples_are_of_the_training_rows(tmp_path):
    define(tmp_path)
    report = lint([tmp_path])
    assert (report.findings, report.not_looked_at) == ((), [])


def test_prompts_whose_examples_are_of_the_test(tmp_path):
    define(tmp_path, "test train valid")
    found = lint([tmp_path]).findings
    assert {one.fault for one in found} == {Fault.LABEL_IN_PROMPT}
    assert {one.file for one in found} == {tmp_path / "mine-prompts.yaml"}
    shown = [one.what.split(" takes")[0] for one in found]
    assert {"Template candidates-nearest", "Template candidates-fixed", "Template list-nearest"} <= set(shown)
    assert all("40 rows of test, the first split of mine" in one.what and len(one.rows) == 40 for one in found)


def test_examples_that_stand_in_the_test_too(tmp_path):
    define(tmp_path, n_shared=2)
    found = lint([tmp_path]).findings
    assert {one.fault for one in found} == {Fault.LABEL_IN_PROMPT, Fault.SHARED_ROWS}
    in_prompts = of_fault(found, Fault.LABEL_IN_PROMPT)
    assert all("2 rows of test stand among them" in one.what and one.rows == ("shared-0", "shared-1") for one in in_prompts)
    assert any("candidates-nearest" in one.what for one in in_prompts)
    assert of_fault(found, Fault.SHARED_ROWS)[0].file == (tmp_path / "rows" / "test.jsonl").resolve()


def script(body, n) -> Scripted:
    return Scripted(text='{"candidates": []}', prompt_tokens=100, completion_tokens=50)


def annotate(folder: Path, split: str = "valid") -> None:
    with ScriptedServer(script) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        model = ("--model", "some-model", "--price-in", "1", "--price-out", "1", "--quiet")
        done = zsd(
            folder, "annotate", "--task", "mine.yaml", "--mix", "candidates-fixed", "--splits", split, "--rows", "8", *model, env=env
        )
        assert done.status == 0, done.err


def looked(folder: Path) -> tuple[int, list[dict[str, Any]], str]:
    "What the command says of the work directory alone: the definition is found by what the annotation was asked with."
    done = zsd(folder, "lint", "zsd-work", "--strict", "--json")
    return done.status, json.loads(done.out), done.err


def test_requests_with_examples_of_the_training_rows(tmp_path):
    define(tmp_path)
    annotate(tmp_path)
    status, found, said = looked(tmp_path)
    assert (status, found) == (0, [])
    assert "mine" not in said  # its rows were looked for
    (tmp_path / "mine.yaml").unlink()
    assert "there is no definition of task mine, whose rows are not looked for in prompts" in " ".join(looked(tmp_path)[2].split())


def test_requests_that_showed_the_test_are_found_though_the_definition_was_mended(tmp_path):
    "The store keeps what was sent."
    define(tmp_path, "test train valid")
    annotate(tmp_path)
    status, found, _ = looked(tmp_path)
    assert (status, {one["fault"] for one in found}) == (1, {"label-in-prompt"})
    by_file = {Path(one["file"]).name: one for one in found}
    assert set(by_file) == {"job.json", "responses.sqlite"}
    assert by_file["responses.sqlite"]["what"] == "Requests show 3 rows of split test of task mine with their entities, as examples."
    assert set(by_file["responses.sqlite"]["rows"]) <= set(by_file["job.json"]["rows"])
    shutil.rmtree(tmp_path / "rows")
    for name in ("mine.yaml", "mine-prompts.yaml"):
        (tmp_path / name).unlink()
    define(tmp_path)
    (after,) = looked(tmp_path)[1]
    assert after == by_file["responses.sqlite"]


@pytest.mark.parametrize("name", ["final", "best-v2", "wnut17-mine"])
def test_a_renamed_annotation_is_of_the_task_that_its_job_names(name, tmp_path):
    define(tmp_path, "test train valid")
    annotate(tmp_path)
    (made,) = (tmp_path / "zsd-work" / "annotations").iterdir()
    made.rename(made.with_name(name))
    for folder, path in ((tmp_path, "zsd-work"), (made.with_name(name), ".")):
        done = zsd(folder, "lint", path, "--json")
        assert "job.json" in {Path(one["file"]).name for one in json.loads(done.out) if one["fault"] == "label-in-prompt"}
        assert "not looked for" not in " ".join(done.err.split())
    (tmp_path / "mine.yaml").unlink()
    said = " ".join(zsd(made.with_name(name), "lint", ".").out.split())
    assert "task ," not in said


def of_names(folder: Path, **splits: list[str]) -> Path:
    "A task of one's own, each of its sentences beginning with a name, with prompts beside its definition."
    content = yaml.safe_load((definitions_dir() / "tasks" / "pocket_names.yaml").read_text(encoding="utf-8"))
    content |= {"name": "mine", "splits": {split: f"{split}.jsonl" for split in splits}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for split, texts in splits.items():
        rows = [
            {"id": f"{split}-{n}", "text": text, "spans": [{"start": 0, "end": 3, "type": "person", "text": "Ada"}]}
            for n, text in enumerate(texts)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_starters(load_task(folder / "mine.yaml"), "mine.yaml")
    return folder / "mine.yaml"


def ask(folder: Path, by_hand: str = "") -> None:
    "Store what the template with the same examples for all rows asks of the rows to validate on, with another example before the drawn ones."
    task = load_task(folder / "mine.yaml")
    template = load_templates(task)["candidates-fixed"]
    template = template.model_copy(update={"user_message": template.user_message.replace("{examples}", f"{by_hand}{{examples}}")})
    with ResponseStore(folder / "responses.sqlite") as store:
        for row in load_examples(task, "valid"):
            request = Request.build("m", render(template, row))
            store.put(request, Response(request.key, "{}", "stop", 5, 1, 0.1, 1, "2026-11-28T00:00:00+00:00", "m"))


LONG = "Ada took the train to the city of Kyiv"
OTHERS = [f"Ada has been to {n} concerts of a choir this year." for n in range(3, 6)]


@pytest.mark.parametrize(
    ("train", "by_hand", "wanted"),
    [
        ([*OTHERS, OTHERS[0]], "", []),
        ([OTHERS[0]] * 4, "", []),  # shown with each other, and nobody asks about them
        ([LONG[:n] for n in (3, 8, 18, 30)], "", []),  # the row begins with each of them, and is none of them
        ([f"{LONG}\n{n}" for n in range(4)], "", []),  # each begins with the row
        (
            [*OTHERS, OTHERS[0]],
            f'Text: {LONG}\n{{{{"candidates": []}}}}\n\n',
            [
                "1 of 2 requests with examples of task mine show the row that they ask about, with its entities.",
                "Requests show 1 row of split valid of task mine with their entities, as examples.",
            ],
        ),
    ],
)
def test_requests_that_show_the_row_that_they_ask_about(train, by_hand, wanted, tmp_path):
    of_names(tmp_path, train=train, valid=[LONG, "Ada is not the one that this example is about."])
    ask(tmp_path, by_hand)
    found = of_fault(lint([tmp_path]).findings, Fault.LABEL_IN_PROMPT)
    assert [one.what for one in found] == wanted


@pytest.mark.parametrize(("both", "is_found"), [("Ada, good morning!", False), (LONG, True)])
def test_few_words_stand_in_two_splits_by_chance(both, is_found, tmp_path):
    of_names(tmp_path, train=[both] * 4, valid=["Ada is not the one that this example is about.", both])
    ask(tmp_path)
    found = of_fault(lint([tmp_path]).findings, Fault.LABEL_IN_PROMPT)
    assert {one.file.name for one in found} == ({"mine-prompts.yaml", "responses.sqlite"} if is_found else set())
