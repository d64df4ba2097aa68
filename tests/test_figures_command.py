"`zsd figures` as a user has it: notebooks that answer, fail, are stopped and run again; real papermill, in a folder of one's own."

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from zsd_command import ended, interrupt, is_one_line, zsd

from zero_shot_distill.core.files import definitions_dir
from zero_shot_distill.core.lock import folder_lock
from zero_shot_distill.student.record import NoRecords
from zero_shot_distill.study.comparable import of_task, read_records
from zero_shot_distill.study.entity_prompts import recorded_entity_prompts
from zero_shot_distill.study.tagger_study import read_taggers
from zero_shot_distill.study.teacher_cost import read_all_records

DRAWING = """
from pathlib import Path
from IPython.display import HTML
Path(figures_dir).mkdir()
for ending in ("svg", "png"):
    (Path(figures_dir) / f"{task_name}_line.{ending}").write_text("<svg><title>a line</title></svg>")
"""
ANSWER = "HTML(f'<p><b>Up &amp; away, for {task_name}.</b></p>')"


def write_experiment(path: Path, *cells: str) -> Path:
    parameters = nbformat.v4.new_code_cell('work_dir = ""\ntask_name = "roses"\nfigures_dir = ""', metadata={"tags": ["parameters"]})
    prose = nbformat.v4.new_markdown_cell(f"# {path.stem.title()} <b>\n> Which way does {path.stem} go?")
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[prose, parameters, *map(nbformat.v4.new_code_cell, cells)], metadata=kernel)
    nbformat.write(notebook, path)
    return path


def figures(folder: Path, *arguments: str):
    # What it starts, the processes that run notebooks and their kernels, is begun anew, as a user's are.
    return zsd(folder, "figures", *arguments)


def test_a_failed_one_stops_no_other_and_what_is_done_is_not_run_again(tmp_path):
    write_experiment(tmp_path / "line.ipynb", DRAWING, ANSWER)
    write_experiment(tmp_path / "broken.ipynb", "1 / 0")
    made, executed = tmp_path / "zsd-work" / "figures", tmp_path / "zsd-work" / "figures" / "executed"
    done = figures(tmp_path, "broken.ipynb", "line.ipynb", "--workers", "2")
    assert done.status == 1
    assert done.last_line.startswith("zsd: 1 of 2 experiments failed: broken; their tracebacks are in zsd-work/figures/executed")
    assert "Up & away, for roses." in done.out
    assert sorted(path.name for path in made.iterdir()) == ["executed", "index.html", "roses_line.png", "roses_line.svg"]
    assert "  broken: ZeroDivisionError: division by zero\n" in done.err
    assert "1 / 0" in (executed / "broken.failed.txt").read_text()
    assert "\x1b" not in (executed / "broken.failed.txt").read_text()
    assert "ZeroDivisionError" in (executed / "broken.tmp.ipynb").read_text()
    page = (made / "index.html").read_text()
    assert "Which way does line go?" in page
    assert "Up &amp; away, for roses." in page
    assert "Line &lt;b&gt;" in page
    assert 'src="roses_line.svg" alt="a line"' in page
    assert "http" not in page
    assert str(tmp_path) not in page
    first = (executed / "line.json").read_text()

    write_experiment(tmp_path / "broken.ipynb", "print('**It** goes.')")
    again = figures(tmp_path, "line.ipynb", "broken.ipynb", "--json")
    assert again.status == 0, again.err
    assert "2 experiments, 1 done already, 1 to run, 1 at a time" in again.err
    assert (executed / "line.json").read_text() == first
    assert [one["answer"] for one in json.loads(again.out)["experiments"]] == ["Up & away, for roses.", "It goes."]
    assert not (executed / "broken.failed.txt").exists()


NONE_THERE = "from zero_shot_distill.study.comparable import read_records\nread_records(work_dir)"


def test_one_that_finds_no_data_is_left_out_and_where_none_finds_any_it_is_told(tmp_path):
    write_experiment(tmp_path / "none.ipynb", NONE_THERE)
    write_experiment(tmp_path / "line.ipynb", DRAWING, ANSWER)
    (tmp_path / "mine").mkdir()
    done = figures(tmp_path, "none.ipynb", "line.ipynb", "--runs", "mine", "--workers", "2")
    assert done.status == 0, done.err
    assert "  none: left out; mine: no record of a student; train some with zsd sweep or zsd train\n" in done.err
    assert "left out: mine: no record of a student" in " ".join(done.out.split())
    assert sorted(path.name for path in (tmp_path / "zsd-work" / "figures" / "executed").glob("none.*")) == ["none.left_out.txt"]
    with folder_lock(tmp_path / "zsd-work" / "figures" / "executed"):  # another `zsd figures` writes into another folder
        alone = figures(tmp_path, "none.ipynb", "--runs", "mine", "--quiet", "--work-dir", "new/er")
    assert (alone.status, alone.out) == (2, "")
    assert not (tmp_path / "new").exists()  # nothing to show, nothing left
    assert alone.last_line.startswith("zsd: no experiment has anything to show; none: mine: no record of a student")
    # A record that is there and damaged is a failure.
    (tmp_path / "mine" / "one.json").write_text("{")
    assert figures(tmp_path, "none.ipynb", "--runs", "mine").status == 1


@pytest.mark.slow
def test_ctrl_c_ends_what_runs_and_the_same_command_goes_on(tmp_path):
    waiting = "from pathlib import Path\nimport time\nPath('begun').touch()\nwhile not Path('go').exists():\n    time.sleep(0.1)\n'Done.'"
    write_experiment(tmp_path / "slow.ipynb", waiting)
    stopped = interrupt(tmp_path, lambda _: (tmp_path / "begun").exists(), "figures", "slow.ipynb", preload="none")
    assert stopped.last_line == "zsd: stopped; what arrived is stored, the same command goes on from there"
    assert "Traceback" not in stopped.err
    assert ended(stopped.children)
    assert list((tmp_path / "zsd-work" / "figures" / "executed").iterdir()) == []
    (tmp_path / "go").touch()
    done = figures(tmp_path, "slow.ipynb")
    assert done.status == 0, done.err
    assert "Done." in done.out


def test_a_second_one_into_the_same_folder_is_refused(tmp_path):
    "They would write into each other's half-executed notebooks; what the other has there stays."
    write_experiment(tmp_path / "line.ipynb", DRAWING, ANSWER)
    with folder_lock(tmp_path / "zsd-work" / "figures" / "executed"):
        done = figures(tmp_path, "line.ipynb", "--quiet")
    is_one_line(done, 2, "zsd-work/figures/executed: another `zsd figures` writes there; wait until it has ended")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["first_lok"], "no experiment 'first_lok'; did you mean first_look?"),
        (["mine.ipynb"], "no experiment 'mine.ipynb'"),
        (["first_look", "--runs", "nowhere"], "nowhere: no such folder"),
        (["odd.ipynb"], "odd.ipynb: no notebook that can be run"),
        (["first_look", "pareto", "--task", "mine.yaml"], "mine.yaml: no such file"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(tmp_path, arguments, part):
    (tmp_path / "odd.ipynb").write_text("{")
    is_one_line(zsd(tmp_path, "figures", *arguments), 2, part)
    assert os.listdir(tmp_path).count("zsd-work") == 0


RECORDED = {"pocket_nli": "students", "pocket_names": "entities_run/runs"}  # task -> its students


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    "A folder with two tasks of one's own, of labels and of entities, and a work directory with their students; the records are of built-in ones."
    folder, data = tmp_path_factory.mktemp("own"), definitions_dir()
    recorded, work_dir = data / "recorded_runs", folder / "zsd-work"
    (work_dir / "runs").mkdir(parents=True)
    for name, students in RECORDED.items():
        shutil.copytree(data / name, folder / name)
        definition = (data / "tasks" / f"{name}.yaml").read_text(encoding="utf-8")
        (folder / f"{name}.yml").write_text(definition.replace(f"name: {name}", f"name: my-{name}").replace("../", ""), encoding="utf-8")
        for path in (recorded / students).glob("*.json"):
            if json.loads(path.read_text())["task"] == name:
                (work_dir / "runs" / path.name).write_text(path.read_text().replace(name, f"my-{name}"))
    for annotation in (recorded / "annotations").iterdir():
        made = work_dir / "annotations" / f"my-{annotation.name}"
        made.mkdir(parents=True)
        for path in annotation.iterdir():
            (made / path.name).write_text(path.read_text().replace("pocket_nli", "my-pocket_nli"))
    return folder


def answers(done) -> dict[str, tuple[int, str]]:  # experiment -> figures, answer
    return {one["experiment"]: (len(one["figures"]), one["answer"]) for one in json.loads(done.out)["experiments"]}


def test_a_task_is_named_by_its_file_as_by_its_name(own):
    "In each way in which the notebooks read records."
    labels, entities = str(own / "pocket_nli.yml"), str(own / "pocket_names.yml")
    assert {run.task for run in read_records(own / "zsd-work" / "runs", labels)} == {"my-pocket_nli"}
    assert read_all_records(own / "zsd-work", labels) == read_all_records(own / "zsd-work", "my-pocket_nli")
    assert len(read_taggers(own / "zsd-work" / "runs", entities)) == 6
    wnut = definitions_dir() / "tasks" / "wnut17.yaml"
    assert of_task(recorded_entity_prompts(), str(wnut)) == of_task(recorded_entity_prompts(), "wnut17") == recorded_entity_prompts()


def test_figures_of_a_task_that_is_named_by_its_file(own):
    done = figures(own, "pareto", "rationale_length", "--runs", "zsd-work", "--task", "pocket_nli.yml", "--workers", "2", "--json")
    assert done.status == 0, done.err
    found = answers(done)
    assert {name: n for name, (n, _) in found.items()} == {"pareto": 1, "rationale_length": 1}
    assert all(answer.startswith("my-pocket_nli: ") for _, answer in found.values())
    assert "as written (25 words) less as written (15 words)" in found["rationale_length"][1]


def test_figures_of_entities_that_are_named_by_their_file(own):
    names = ("ner_two_phase", "rationale_length")
    done = figures(own, *names, "--runs", "zsd-work", "--task", "pocket_names.yml", "--workers", "2", "--json", "--work-dir", "names")
    assert done.status == 0, done.err
    found = answers(done)
    assert "my-pocket_names" in found["ner_two_phase"][1]
    # It is about rationales, which such students do not learn; so is `pareto`, which reads the same records.
    reason = "no record of a student of task 'pocket_names.yml'; those that are there tag words"
    assert found["rationale_length"] == (0, f"left out: zsd-work: {reason}")
    with pytest.raises(NoRecords) as told:
        read_all_records(own / "zsd-work", str(own / "pocket_names.yml"))
    assert str(told.value) == f"{own / 'zsd-work'}: {reason}".replace("pocket_names.yml", str(own / "pocket_names.yml"))
