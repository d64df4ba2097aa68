"The README's five commands for one's own data, as they stand there, against a scripted teacher."

import json
import re
from pathlib import Path

import pytest
from repository import ROOT
from scripted_server import Scripted, ScriptedServer
from zsd_command import zsd

from zero_shot_distill.student.model import make_tiny_t5

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
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"^## Your own data in five commands\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)[1]


def files_of(text: str) -> dict[str, str]:
    "The YAML files that the section shows, by the name in their first line."
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    contents = [re.sub(rf"(?m)^{indent}", "", block) for indent, block in blocks]
    return {name[1]: content for content in contents if (name := re.match(r"# (\S+)\n", content))}


def test_the_five_commands(tmp_path: Path):
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
        env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-scripted"}
        for command in commands:
            asks = command.split()[1] in ("experiment", "forecast", "annotate")
            hosted = ["--model", "scripted-teacher", "--price-in", "1", "--price-out", "4"] if asks else []
            done = zsd(tmp_path, *command.split()[1:], *hosted, env=env)
            assert done.status == 0, f"{command}: {done.err}"
            if "experiment" in command:
                n_experiment = server.summary()["attempts"]
                assert n_experiment == 40 * 6
        assert server.summary()["n_requests"] == server.summary()["attempts"]  # nothing was asked twice
    assert list((tmp_path / "zsd-work" / "annotations").glob("reviews-*/train.jsonl"))
    assert list(tmp_path.glob("zsd-work/reviews/report/*.html"))


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
