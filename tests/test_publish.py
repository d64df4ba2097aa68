"""`--push-to-hub`: the real `huggingface_hub` sends an annotation and students to a stand-in of the hub (`stand_in_hub.py`), which fails where it is told to."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripted_server import Scripted, ScriptedServer
from stand_in_hub import TOKEN, Answer, Asked, Repository, StandInHub
from test_entities import SENTENCES, conll
from zsd_command import Done, Project, environment, interrupt, is_one_line, zsd

from zero_shot_distill.core.progress import Progress
from zero_shot_distill.publish import HubRepository, PublishError, open_repository, send, student_parcel

PUSH = ("--push-to-hub", "me/reviews")


@pytest.fixture(scope="module")
def serving() -> Iterator[StandInHub]:
    "One address for all tests: the hub's library takes it in when it is imported."
    with StandInHub() as hub:
        yield hub


@pytest.fixture
def hub(serving) -> StandInHub:
    "A hub on which nothing is yet."
    address = serving.address
    serving.__init__()
    serving.address = address
    return serving


@pytest.fixture(scope="module")
def teacher() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda body, n: Scripted(text="The premise says so in as many words: entailment")) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A task with two splits, a tiny student, and one that tags words."
    from zero_shot_distill.ner.model import make_tiny_bert

    folder = tmp_path_factory.mktemp("publish")
    project = Project(folder)
    for template in project.prompts["templates"]:
        template["reply_pattern"] = "(?P<rationale>.*): (?P<label>[a-z]+)"
    project.task |= {"aliases": {}}
    project.write().make_student()
    (folder / "names.conll").write_text(conll(SENTENCES * 10))
    assert zsd(folder, "tasks", "add", "names", "names.conll").status == 0
    make_tiny_bert(folder / "tiny-bert", [" ".join(phrase for phrase, _ in sentence) for sentence in SENTENCES])
    return folder


@pytest.fixture
def run(folder, hub, teacher):
    "Run a command that knows the hub and the teacher. Whatever it prints, the token is not in it."
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    settings |= {"OPENAI_BASE_URL": teacher.base_url, "OPENAI_API_KEY": "sk-scripted"}

    def run(*arguments: str, reached=None, **changed: str) -> Done:
        env = environment(**settings | changed)
        done = interrupt(folder, reached, *arguments, env=env) if reached else zsd(folder, *arguments, env=env)
        assert TOKEN not in done.out + done.err
        assert not any(TOKEN in path.read_text(errors="replace") for path in (folder / "zsd-work").rglob("*") if path.is_file())
        return done

    return run


def annotate(*more: str, rows: int = 6, push: tuple[str, ...] = PUSH) -> tuple[str, ...]:
    how = ("--task", "my_task.yaml", "--prompts", "my_prompts.yaml", "--mix", "tell", "--model", "some-model")
    return ("annotate", *how, "--splits", "train,valid", "--rows", str(rows), "--quiet", *push, *more)


def train(*more: str, push: tuple[str, ...] = PUSH) -> tuple[str, ...]:
    how = ("--task", "my_task.yaml", "--student", "./tiny", "--method", "standard", "--steps", "2")
    return ("train", "--annotations", "train.jsonl", *how, "--quiet", *push, *more)


def tag(*more: str, push: tuple[str, ...] = PUSH) -> tuple[str, ...]:
    return ("train", "--annotations", "names.conll", "--student", "./tiny-bert", "--steps", "2", "--quiet", *push, *more)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made_by(command: Callable, folder: Path) -> Path:
    "Where the command has put what it made; of annotations the last, since each run writes the card."
    pattern = {annotate: "annotations/*", train: "students/standard-*", tag: "students/gold-*"}[command]
    return max((folder / "zsd-work").glob(pattern), key=lambda path: (path / "README.md").stat().st_mtime)


# --- what arrives ---------------------------------------------------------------------------------------------------------------


def test_an_annotation_arrives_as_it_is(folder, hub, teacher, run, tmp_path):
    "Into a new private data set, of which the hub is asked before the teacher is; `datasets` reads what arrived; again, and nothing is sent."
    n_asked_of_hub = []
    hub.fault = lambda asked, n: n_asked_of_hub.append(len(teacher.bodies)) and None
    before = len(teacher.bodies)
    done = run(*annotate(rows=5))
    assert done.status == 0, done.err
    assert done.err == f"Uploaded: {hub.address}/datasets/me/reviews\n"
    (first_asked,) = {name for name in hub.repositories}
    assert first_asked == ("dataset", "me/reviews")
    repository = hub.repositories[first_asked]
    assert repository.is_private
    paths = [asked.path for asked in hub.asked]
    there = [place for place, path in enumerate(paths) if path == "/api/datasets/me/reviews"]
    checked = there[1]  # the first asks whether it is there, the second, the last question of the check, whether it is private
    assert {n_asked_of_hub[place] for place in range(checked + 1)} == {before}
    assert len(teacher.bodies) == before + 10
    made = made_by(annotate, folder)
    local = files_in(made)
    assert {"README.md", "train.jsonl", "valid.jsonl", "train_CoT.json", "valid_CoT.json", "dataset/dataset_dict.json"} < set(
        repository.files
    )
    assert (
        "report.json" in set(local) - set(repository.files) <= {"report.json", "job.json", ".lock", "unanswered.jsonl"}
    )  # the first two name folders of this machine
    assert not any(str(folder).encode() in content for content in repository.files.values())
    assert repository.files == {name: local[name] for name in repository.files}
    assert hub.count("PUT", "/lfs/") == len({local[name] for name in local if name.endswith(".arrow")})

    from datasets import load_dataset

    for name, content in repository.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert f'load_dataset("{first_asked[1]}", split="train")' in repository.files["README.md"].decode()  # as who reads it there may run it
    rows = load_dataset(str(tmp_path / "copy"), split="valid", cache_dir=str(tmp_path / "cache"))
    assert [row["label"] for row in rows] == ["entailment"] * 5

    n_files, n_puts = len(repository.files), hub.count("PUT", "/lfs/")
    again = run(*annotate(rows=5))
    assert again.status == 0, again.err
    assert (len(repository.files), hub.count("PUT", "/lfs/"), len(teacher.bodies)) == (n_files, n_puts, before + 10)
    changed = [name for commit in repository.commits[1:] for name in commit["paths"]]
    assert "train.jsonl" not in changed
    assert not any(name.endswith(".arrow") for name in changed)


@pytest.mark.parametrize("command", [train, tag])
def test_a_student_arrives_as_it_is(folder, hub, run, command):
    "In a model's repository; its weights go by LFS in several parts."
    done = run(*command())
    assert done.status == 0, done.err
    assert done.err == f"Uploaded: {hub.address}/me/reviews\n"
    ((place, repository),) = hub.repositories.items()
    assert (place, repository.is_private) == (("model", "me/reviews"), True)
    assert repository.files == files_in(made_by(command, folder))
    assert {"README.md", "student.json", "model.safetensors"} <= set(repository.files)
    assert hub.count("PUT", "/lfs/") > 1
    assert not any(str(folder).encode() in content for content in repository.files.values())


def test_small_files_travel_in_the_commit_where_xet_is_on(hub, tmp_path):
    "By the other of the library's two ways: here none of the files is large, so that Xet itself is not asked."
    from huggingface_hub import HfApi

    hub.lfs_endings = ()
    student = tmp_path / "student"
    (student / "deep").mkdir(parents=True)
    for name, content in {"README.md": "---\nlicense: mit\n---\n# A card\n", "deep/one [1].txt": "one", "empty": ""}.items():
        (student / name).write_text(content)
    api = HfApi(endpoint=hub.address, token=TOKEN)
    access = open_repository(HubRepository("my-team/reviews", "model"), Progress(quiet=True), api)
    assert send(student_parcel(student), access, Progress(quiet=True)) == f"{hub.address}/my-team/reviews"
    assert hub.repositories["model", "my-team/reviews"].files == files_in(student)
    send(student_parcel(student), access, Progress(quiet=True))
    assert len(hub.repositories["model", "my-team/reviews"].commits) == 1


def test_a_repository_of_ones_own_keeps_what_is_in_it(folder, hub, run, capsys):
    "Public ones are told before anything is sent, and stay public."
    hub.repositories["dataset", "me/reviews"] = mine = Repository(False, {"notes.txt": b"mine", "README.md": b"former"})
    done = run(*(word for word in annotate() if word != "--quiet"))
    assert done.status == 0, done.err
    assert "the data set me/reviews is public: what is uploaded there can be read by all" in done.err
    assert (mine.is_private, mine.files["notes.txt"]) == (False, b"mine")
    assert mine.files["README.md"] != b"former"


# --- a dry run ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "kind"), [(annotate, "data set"), (train, "model"), (tag, "model")])
def test_a_dry_run_lists_and_asks_nobody(folder, hub, teacher, run, command, kind):
    "Neither hub nor teacher; it needs no token."
    assert run(*command(push=())).status == 0
    n_asked = len(teacher.bodies)
    done = run(*command("--dry-run"), HF_TOKEN="")
    assert done.status == 0, done.err
    assert (hub.asked, len(teacher.bodies)) == ([], n_asked)
    head, *lines = done.err.splitlines()
    made = made_by(command, folder)
    assert f"from {made.relative_to(folder)} to the {kind} me/reviews, which is made private where it is new: {len(lines)} files" in head
    listed = {line.split(maxsplit=2)[2] for line in lines}
    assert run(*command()).status == 0
    ((_, repository),) = hub.repositories.items()
    assert listed == set(repository.files)
    if command is annotate:
        is_one_line(run(*annotate("--dry-run", rows=6, push=(*PUSH, "--mix", "explain")), HF_TOKEN=""), 2, "stored")


def test_a_dry_run_is_of_an_upload(run):
    is_one_line(run(*annotate("--dry-run", push=())), 2, "--dry-run goes with --push-to-hub; give both")
    is_one_line(run(*train("--dry-run", push=())), 2, "--dry-run goes with --push-to-hub; give both")


# --- what goes wrong ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reviews", "me/my/reviews", "me/", "me/re views", "", "https://hub.example/me/reviews"])
@pytest.mark.parametrize("command", [annotate, train])
def test_a_name_that_is_none(hub, run, command, name):
    is_one_line(run(*command(push=("--push-to-hub", name))), 2, f"--push-to-hub {name}", "write OWNER/NAME, e.g. me/reviews")
    assert hub.asked == []


REFUSALS = {
    "no token": ({"HF_TOKEN": ""}, "me/new", None, "the Hugging Face hub does not know who you are; log in with `hf auth login`"),
    "another token": ({"HF_TOKEN": "hf_other"}, "me/new", None, "the hub does not accept your token (status 401)"),
    "somebody else's name": ({}, "you/new", None, "you may not write there (status 403)"),
    "a team's that may be read": ({}, "my-readers/there", None, "you may not write there (status 403)"),
    "a hub at fault": ({}, "me/new", Answer(500, {}), "the hub has a fault (status 500); try again later"),
    "too many questions": ({}, "me/new", Answer(429, {}), "the hub was asked too often (status 429)"),
    "a token repeated": ({}, "me/new", Answer(418, {"error": TOKEN}, {"X-Error-Message": f"odd: {TOKEN}"}), "odd: ***"),
    "no JSON": ({}, "me/new", Answer(200, b"<html>a portal</html>"), "cannot be reached or does not answer as a hub"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_comes_before_anything_is_paid(folder, hub, teacher, run, case):
    changed, name, answer, said = REFUSALS[case]
    hub.repositories["dataset", "my-readers/there"] = Repository(False)
    hub.fault = lambda asked, n: answer
    n_asked = len(teacher.bodies)
    done = run(*annotate(rows=7, push=("--push-to-hub", name)), **changed)
    is_one_line(done, 1, f"data set {name}: ", said, "Nothing was begun")
    assert len(teacher.bodies) == n_asked
    assert not any(asked.method == "POST" and "commit" in asked.path for asked in hub.asked)


@pytest.mark.parametrize(("at", "status", "said"), [("commit/main", 500, "the hub has a fault (status 500)"), ("/lfs/", 403, "you may not write there"), ("validate-yaml", 400, "Invalid metadata in README.md. - an odd licence")])  # fmt: skip
def test_a_fault_in_the_middle_and_then_again(folder, hub, run, at, status, said):
    "What had arrived is not sent again, and the repository has all files or none."
    assert run(*train(push=())).status == 0
    hub.fault = lambda asked, n: Answer(status, {"errors": [{"message": "an odd licence"}]}) if at in asked.path else None
    done = run(*train())
    assert done.status == 1
    assert done.last_line.startswith("zsd: model me/reviews: not uploaded: ")
    assert said in done.last_line
    assert "the same command sends it without asking or training again" in done.last_line
    assert "Traceback" not in done.err
    assert hub.repositories["model", "me/reviews"].files == {}
    assert f"An empty private one was made at {hub.address}/me/reviews: the same command fills it" in done.last_line
    assert "`hf repos delete me/reviews --type model` removes it" in done.last_line
    once_more = run(*train())  # the same fault, in a repository that is there
    assert "was made at" not in once_more.last_line
    n_there = len(hub.objects)
    n_puts = hub.count("PUT", "/lfs/")
    hub.fault = lambda asked, n: None
    again = run(*train())
    assert again.status == 0, again.err
    repository = hub.repositories["model", "me/reviews"]
    assert (repository.files, len(repository.commits)) == (files_in(made_by(train, folder)), 1)
    assert bool(hub.count("PUT", "/lfs/") - n_puts) == (not n_there)


def test_ctrl_c_while_it_is_sent(folder, hub, run):
    assert run(*train(push=())).status == 0
    begun, end = threading.Event(), threading.Event()

    def hold(asked: Asked, n: int) -> None:
        if asked.method == "PUT":
            begun.set()
            end.wait(60)

    hub.fault = hold
    stopped = run(*train(), reached=lambda _: begun.is_set())
    end.set()
    assert stopped.status == 1
    assert stopped.last_line == "zsd: stopped; what arrived is stored, the same command goes on from there"
    assert "Traceback" not in stopped.err
    assert hub.repositories["model", "me/reviews"].files == {}
    hub.fault = lambda asked, n: None
    assert run(*train()).status == 0
    assert hub.repositories["model", "me/reviews"].files == files_in(made_by(train, folder))


def test_rows_without_a_reply_are_not_uploaded(folder, hub, run):
    assert run(*annotate(push=())).status == 0
    done = run(*annotate("--offline", rows=8))
    assert done.status == 1
    assert done.last_line == "nothing is uploaded to the data set me/reviews before each row has a reply; run the same command again" + (
        f" (an empty private one was made at {hub.address}/datasets/me/reviews: the same command fills it, `hf repos delete me/reviews --type dataset` removes it)"
    )
    assert hub.repositories["dataset", "me/reviews"].files == {}


def test_a_hub_that_is_not_there(folder, tmp_path):
    from huggingface_hub import HfApi

    with pytest.raises(PublishError, match=r"cannot be reached or does not answer as a hub .*check the network, and HF_ENDPOINT"):
        open_repository(HubRepository("me/new", "model"), Progress(quiet=True), HfApi(endpoint="http://127.0.0.1:9", token=TOKEN))
