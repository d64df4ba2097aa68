"Names that become files: whatever a definition calls itself, nothing is written elsewhere, and it says so before anything is asked."

import pytest
import yaml

from zero_shot_distill.core.definition import DefinitionError, check_definition
from zero_shot_distill.pipeline import Pipeline
from zero_shot_distill.study.sweep import Sweep
from zero_shot_distill.task.task import load_task

ODD = ["../../evil", "/tmp/mine", "a/b", "..", ".hidden", "-rf", "tab\tbed", "C:mine", "", "x" * 101]
TASK = {
    "name": "t",
    "fields": {"text": "text"},
    "label_column": "label",
    "labels": ["a", "b"],
    "student_input": "{text}",
    "splits": {"train": "t.jsonl"},
}


def loaded(tmp_path, **changes):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(TASK | changes))
    return load_task(str(path))


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_refused_as_they_are_loaded(name, tmp_path):
    for changes in ({"name": name}, {"splits": {name: "t.jsonl"}}):
        with pytest.raises(DefinitionError, match=r"names files") as told:
            loaded(tmp_path, **changes)
        assert "\n" not in str(told.value)
    for model, content in ((Pipeline, {"task": "pocket_nli"}), (Sweep, {"annotations": "a"})):
        with pytest.raises(DefinitionError, match=r"name: .* names files"):
            check_definition(content | {"name": name}, model, "mine.yaml")


@pytest.mark.parametrize("name", ["my reviews", "Grüße", "日本語", "a.b-c_d", "2024"])
def test_other_names_are_welcome(name, tmp_path):
    assert list(loaded(tmp_path, name=name, splits={name: "t.jsonl"}).splits) == [name]


@pytest.mark.parametrize("split", ["left", "unanswered"])
def test_a_split_cannot_take_a_file_of_the_annotation(split, tmp_path):
    with pytest.raises(DefinitionError, match=f"splits.{split}: an annotation has a file of that name"):
        loaded(tmp_path, splits={"train": "t.jsonl", split: "u.jsonl"})
