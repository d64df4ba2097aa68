"""Several processes that write the same files: all end well, and the files are whole. Releases of annotations are in test_release.py."""

import os
import signal
from pathlib import Path

import pyarrow.parquet  # here, not in each child anew
import pytest
from at_once import at_once

from zero_shot_distill.store.export import export_parquet
from zero_shot_distill.store.read_only import ReadOnlyStore
from zero_shot_distill.store.request import Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.student.place import written_beside


def save_student(number: int, path: Path, is_killed: bool) -> None:
    "Write ten files of a student, ten times; the first process dies among them."
    for _ in range(10):
        with written_beside(path) as staging:
            for n in range(10):
                (staging / f"{n}.txt").write_text(str(number))
                if is_killed and number == 0 and n == 5:
                    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_student(tmp_path, is_killed):
    path = tmp_path / "students" / "one"
    assert at_once(4, save_student, path, is_killed) == [-signal.SIGKILL if is_killed else 0, 0, 0, 0]
    files = {file.name: file.read_text() for file in path.iterdir()}
    assert set(files) == {f"{n}.txt" for n in range(10)}
    assert len(set(files.values())) == 1
    if is_killed:  # perhaps as the last of the four; the next save then takes away what it left
        save_student(1, path, is_killed)
    assert os.listdir(path.parent) == ["one"]


def export(number: int, store: Path, file: Path) -> None:
    for _ in range(5):
        with ReadOnlyStore(store) as opened:
            assert export_parquet(opened, file) == 50


def test_a_parquet_file(tmp_path):
    requests = [Request.build("m", [{"role": "user", "content": str(n)}]) for n in range(50)]
    with ResponseStore(tmp_path / "responses.sqlite") as store:
        store.put_many((each, Response(each.key, "yes", "stop", 1, 1, 0.1, 1, "2026-01-01T00:00:00+00:00", "m")) for each in requests)
    assert at_once(4, export, tmp_path / "responses.sqlite", tmp_path / "out" / "replies.parquet") == [0] * 4
    assert pyarrow.parquet.read_table(tmp_path / "out" / "replies.parquet").num_rows == 50
    assert os.listdir(tmp_path / "out") == ["replies.parquet"]
