"The five commands for one's own data, as they stand on the page *Getting started*, against a scripted teacher."

import json
import re
from pathlib import Path

import pytest
from repository import ROOT
from scripted_server import Scripted, ScriptedServer
from tokenizers import Tokenizer, models, pre_tokenizers
from zsd_command import environment, interrupt, is_one_line, said, zsd

from zero_shot_distill.annotate.rows import read_annotations
from zero_shot_distill.pipeline import draw_rows, load_pipeline
from zero_shot_distill.student.model import make_tiny_t5
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import load_task

SUBJECTS = ("soup", "hotel", "film", "bus", "book", "tour", "shop", "concert", "phone", "garden")
WORDS = {"good": ("lovely", "great", "kind", "superb"), "bad": ("awful", "cold", "rude", "broken")}


def reviews() -> list[dict[str, str]]:
    return [
        {"text": f"The {subject} was {word}, I went there on day {day}.", "label": rating}
        for rating, words in WORDS.items()
        for word in words
        for subject in SUBJECTS
        for day in (1, 2, 3)
    ]


def knows_reviews(body: dict, n: int) -> Scripted:
    "Right, with a reason, in the form that is asked for."
    text = body["messages"][-1]["content"]
    label = "good" if any(word in text for word in WORDS["good"]) else "bad"
    reason = f"The writer was there and says plainly that it was {label}."
    if "JSON" in text:
        said = json.dumps({"explanation": reason, "label": label})
    elif "Answer:" in text:
        said = f"{reason}\nAnswer: {label}"
    else:
        said = label if "nothing else" in text else f"{label.capitalize()}. {reason}"
    return Scripted(text=said, prompt_tokens=60, completion_tokens=20)


def section() -> str:
    cells = json.loads((ROOT / "nbs" / "getting_started.ipynb").read_text(encoding="utf-8"))["cells"]
    page = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.search(r"^## Your own data in five commands\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]


def files_of(text: str) -> dict[str, str]:
    "The YAML files that the section shows, by the name in their first line."
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    contents = [re.sub(rf"(?m)^{indent}", "", block) for indent, block in blocks]
    return {name[1]: content for content in contents if (name := re.match(r"# (\S+)\n", content))}


def annotated_rows(folder: Path) -> dict[str, int]:  # annotation -> its training rows
    return {path.parent.name: len(read_annotations(path)) for path in (folder / "zsd-work" / "annotations").glob("reviews-*/train.jsonl")}


@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_five_commands(tmp_path: Path, to_the_end: bool):
    "The fifth is stopped where it begins to train: test_pipeline.py has students and report of a hosted teacher's rows."
    commands = re.search(r"```bash\n(.*?)```", section(), re.DOTALL)[1].splitlines()
    assert [command.split()[:2] for command in commands] == [
        ["zsd", "tasks"],
        ["zsd", "experiment"],
        ["zsd", "forecast"],
        ["zsd", "annotate"],
        ["zsd", "run"],
    ]
    rows = reviews()
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, content in files_of(section()).items():
        if name == "reviews-run.yaml":  # the same file, with a smaller student and a scripted teacher
            assert "steps: 400" in content
            content = content.replace("steps: 400", "weights: ./tiny, steps: 4, batch_size: 4, seeds: [0], gold_seeds: []")
            content = re.sub(r"(train_rows|valid_rows|confirmation_rows): \d+", r"\1: 20", content)
            content += "teacher: {model: scripted-teacher}\n"
        (tmp_path / name).write_text(content)
    make_tiny_t5(tmp_path / "tiny", [*(text for row in rows for text in row.values()), "predict: explain:"])
    with ScriptedServer(knows_reviews) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        for command in commands:
            asks = command.split()[1] in ("experiment", "forecast", "annotate")
            hosted = ["--model", "scripted-teacher", "--price-in", "1", "--price-out", "4"] if asks else []
            before = annotated_rows(tmp_path)
            if command == commands[-1] and not to_the_end:
                done = interrupt(tmp_path, lambda _: "5/6 students" in said(tmp_path), *command.split()[1:], env=env)
                assert done.status == 1, done.err
            else:
                done = zsd(tmp_path, *command.split()[1:], *hosted, env=env)
                assert done.status == 0, f"{command}: {done.err}"
            if "experiment" in command:
                n_experiment = server.summary()["attempts"]
                assert n_experiment == 40 * 6
        assert server.summary()["n_requests"] == server.summary()["attempts"]  # nothing was asked twice
    assert len(before) == 1  # of `zsd annotate`
    of_run = {name: n for name, n in annotated_rows(tmp_path).items() if name not in before}
    assert list(of_run.values()) == [20]
    assert not to_the_end or list(tmp_path.glob("zsd-work/reviews/report/*.html"))


@pytest.mark.slow  # test_few_gold.py has such rows
def test_few_labelled_rows_among_many(tmp_path: Path):
    "Prompts are chosen and students measured on the rows with a label; all rows are annotated."
    without = ({}, {"label": None}, {"label": "-"})  # ways to have none
    rows = [row if n % 6 == 0 else {"text": row["text"]} | without[n % 3] for n, row in enumerate(reviews())]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert zsd(tmp_path, "tasks", "add", "reviews", "reviews.jsonl", "--labels", "good,bad").status == 0
    parts = {split: load_examples(load_task(tmp_path / "reviews.yaml"), split) for split in ("train", "valid", "test")}
    n_labelled = {split: sum(row.label is not None for row in part) for split, part in parts.items()}
    assert {split: len(part) for split, part in parts.items()} == {"train": 200, "valid": 24, "test": 16}
    assert n_labelled == {"train": 20, "valid": 4, "test": 16}
    run = {"name": "mine", "task": "./reviews.yaml", "teacher": {"model": "m"}, "prompts": {"selection_rows": 8, "confirmation_rows": 8}}
    run |= {"annotate": {"train_rows": 60, "valid_rows": 20}}
    (tmp_path / "mine.yaml").write_text(json.dumps(run))
    with ScriptedServer(knows_reviews) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        task = ("--task", "reviews.yaml", "--model", "m", "--price-in", "1", "--price-out", "4")
        done = zsd(tmp_path, "experiment", *task, "--samples", "15", "--json", env=env)
        assert done.status == 0, done.err
        figures = next(iter(json.loads(done.out).values()))
        assert (figures["n_rows"], figures["performance"]["accuracy"]) == (15, 1.0)
        best = next(iter(json.loads(done.out)))
        done = zsd(tmp_path, "experiment", *task, "--samples", "21", env=env)
        is_one_line(done, 2, "21 rows asked for, only 20 of 200 have a label; lower the number")
        for command in ("forecast", "annotate"):
            arguments = [*task, "--mix", best, *(["--splits", "train,valid"] if command == "annotate" else ["--split", "train"])]
            done = zsd(tmp_path, command, *arguments, env=env)
            assert done.status == 0, f"{command}: {done.err}"
    (made,) = (tmp_path / "zsd-work" / "annotations").glob("reviews-*/train.jsonl")
    assert "Next: zsd train --task reviews.yaml --annotations reviews-" in done.out
    annotated = read_annotations(made)
    assert len(annotated) == 200
    assert all(row.label for row in annotated)
    # Rows with a label come first: those of the experiment are part of fewer rows, too.
    done = zsd(tmp_path, "annotate", *task[:4], "--mix", best, "--rows", "20", "--offline")
    assert done.status == 0, done.err
    assert "--splits train,valid" in done.out
    rows = [read_annotations(path) for path in (tmp_path / "zsd-work" / "annotations").glob("reviews-*/train.jsonl")]
    assert all(row.gold for row in min(rows, key=len))
    drawn = draw_rows(load_pipeline(tmp_path / "mine.yaml"), load_task(tmp_path / "reviews.yaml"))
    assert [len(part) for part in (drawn.selection, drawn.confirmation, drawn.train, drawn.valid, drawn.test)] == [8, 8, 60, 20, 16]
    assert all(row.label for row in (*drawn.selection, *drawn.confirmation, *drawn.test))


def test_texts_that_a_student_cannot_read_are_told_before_the_teacher_is_paid(tmp_path: Path):
    "By `tasks add`, and by the first line of forecast and annotate; with no tokenizer at hand nothing is said."
    pieces = ["<unk>", "room", *map(str, range(60))]
    known = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "cache" / "weights" / "flan-t5-small" / "restored").mkdir(parents=True)
    known.save(str(tmp_path / "cache" / "weights" / "flan-t5-small" / "restored" / "tokenizer.json"))
    rows = [{"text": f"{'很干净' if n // 2 % 2 else 'room'} {n}", "label": ("好", "坏")[n % 2]} for n in range(60)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = "flan-t5-small cannot read"
    for cache, is_said in (("cache", True), ("nothing", False)):
        env = environment(ZSD_CACHE=str(tmp_path / cache))
        done = zsd(tmp_path, "tasks", "add", "reviews", "reviews.jsonl", "--json", "--force", env=env)
        findings = {finding["kind"]: finding["what"] for finding in json.loads(done.out)["findings"]}
        assert findings.get("unreadable", "").startswith(said) == is_said
        if is_said:
            assert "(25 % of their tokens are unknown to it; in 30 of 60 rows looked at" in findings["unreadable"]
        with ScriptedServer(knows_reviews) as server:
            env = env | {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-scripted"}
            done = zsd(tmp_path, "annotate", "--task", "reviews.yaml", "--model", "m", "--mix", "label-first", "--rows", "5", env=env)
        assert (said in done.err) == is_said
        if is_said:
            assert done.err.index(said) < done.err.index("questions to m")


def test_the_section_names_files_that_it_shows():
    text = section()
    assert set(files_of(text)) == {"reviews-run.yaml"}
    assert "reply_pattern" not in text
    for name in files_of(text):
        assert re.search(rf"(?m)^zsd .*{re.escape(name)}", text)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_pages_are_in_plain_words(page):
    words = re.findall(r"\b(?:rooms?|houses?|mend(?:s|ed)?|doors?)\b", (ROOT / page).read_text(encoding="utf-8"), re.IGNORECASE)
    assert words == []
