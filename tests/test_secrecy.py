"""A key is planted where users keep one; then everything that the project writes and says is searched for it."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from scripted_server import BatchScript, Scripted, ScriptedServer
from zsd_command import environment, zsd

KEY = "sk-planted-0123456789-key"
HEADER = "planted-header-secret-9876"
TEACHER = (
    "model: some-model\nprice: {input: 1, output: 2}\nsampling: {temperature: 0, max_tokens: 20}\nheaders: {X-Project: $PROJECT_SECRET}\n"
)


def holds_no_secret(folder: Path, *texts: str) -> None:
    for text in texts:
        assert KEY not in text
        assert HEADER not in text
    for file in folder.rglob("*"):
        if file.is_file() and file.name != ".env":
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            assert HEADER.encode() not in content, file


@pytest.fixture
def project(tmp_path):
    (tmp_path / "teacher.yaml").write_text(TEACHER)
    return tmp_path


def keep_key(folder: Path, server: ScriptedServer) -> None:
    (folder / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={server.base_url}\nPROJECT_SECRET={HEADER}\n")


def faulty(body: dict, n: int) -> Scripted:
    "Every third request is refused, in words that repeat what was sent."
    return Scripted(400, error=f"bad request with Bearer {KEY} and {HEADER}") if n % 3 == 2 else Scripted(text="Label: neutral. It is so.")


def annotate(folder: Path, *more: str):
    command = ("annotate", "--task", "pocket_nli", "--mix", "one-sentence", "--rows", "12", "--teacher", "teacher.yaml")
    return zsd(folder, *command, *more)


def test_annotating_and_exporting(project):
    with ScriptedServer(faulty, echoes_authorization=True) as server:
        keep_key(project, server)
        done = annotate(project)
        assert (done.status, server.authorizations[0]) == (1, f"Bearer {KEY}"), done.err
        assert "***" in (project / next(project.glob("zsd-work/annotations/*/train.jsonl"))).read_text()
        exported = zsd(project, "store", "export", "all.parquet")
        assert exported.status == 0, exported.err
        info = zsd(project, "store", "info", "--json")
    holds_no_secret(project, done.out, done.err, exported.out, exported.err, info.out, info.err)


def test_a_batch(project):
    script = BatchScript(script=faulty)
    with ScriptedServer(faulty, echoes_authorization=True, batch=script) as server:
        keep_key(project, server)
        done = annotate(project, "--via", "batch")
    assert done.status in (0, 1), done.err
    holds_no_secret(project, done.out, done.err)


@pytest.mark.parametrize("status", [401, 404, 429])
def test_a_run_that_stops(project, status):
    code = "insufficient_quota" if status == 429 else None
    with ScriptedServer(lambda body, n: Scripted(status, error=f"no: {KEY} {HEADER}", code=code), echoes_authorization=True) as server:
        keep_key(project, server)
        done = annotate(project)
    assert done.status == 2, done.err
    holds_no_secret(project, done.out, done.err)


def test_a_traceback_and_a_notebook(project):
    "An error that nobody catches, in a script and in a notebook that is kept."
    source = (
        "from zero_shot_distill.teacher.teacher import RequestLimits, teacher_from_environment\n"
        "from zero_shot_distill.teacher.client import TeacherClient\n"
        "from zero_shot_distill.store.request import Request\n"
        "from zero_shot_distill.store.store import ResponseStore\n"
        "teacher = teacher_from_environment('some-model', {'X-Project': '$PROJECT_SECRET'}, RequestLimits(n_retries=0))\n"
        "print(teacher, repr(teacher), vars(Request.build('m', [])))\n"
        "requests = [Request.build('some-model', [{'role': 'user', 'content': str(n)}]) for n in range(12)]\n"
        "TeacherClient(teacher, ResponseStore('responses.sqlite')).ask(requests)\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, project / "look.ipynb")
    with ScriptedServer(lambda body, n: Scripted(500, error=f"no: {KEY} {HEADER}"), echoes_authorization=True) as server:
        keep_key(project, server)
        done = subprocess.run([sys.executable, "-c", source], cwd=project, env=environment(), capture_output=True, text=True)
        assert "Traceback" in done.stderr
        command = [sys.executable, "-m", "papermill", "look.ipynb", "ran.ipynb", "-k", "python3", "--no-progress-bar"]
        run = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
        assert "TeacherError" in (project / "ran.ipynb").read_text(), run.stderr
    holds_no_secret(project, done.stdout, done.stderr, run.stdout, run.stderr)
