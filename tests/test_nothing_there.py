"What looks at nothing says so in one line with status 2: no command calls an empty folder a success."

import sys
from pathlib import Path

import pytest

from zero_shot_distill.cli.main import main


def files(folder: Path) -> list[Path]:
    "All that is there, but for what SQLite keeps beside a store that is only read."
    return sorted(path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("lint notes", "notes: nothing to look through: no run record"),
        ("lint empty.jsonl", "empty.jsonl: nothing to look through"),
        ("lint --task pocket_nli notes --json", "notes: nothing to look through"),
        ("lint", "zsd-work: no such file or folder"),
        ("claims --runs .", ".: no record of a student"),
        ("evaluate --task pocket_nli", "no replies of"),
        ("import-thesis .", ".: nothing of the thesis that can be used (empty.jsonl: empty); name a clone"),
        ("import-thesis notes", "notes: nothing of the thesis; name a clone"),
        ("import-thesis notes/notes.md", "notes/notes.md: nothing of the thesis; name a clone"),
        ("import-thesis broken", "broken: nothing of the thesis that can be used (broken/prompt-mixes/1.yaml: neither templates"),
        ("store info", "zsd-work/responses.sqlite: no such file"),
        ("store info --store empty.sqlite", "empty.sqlite: is empty; name a store"),
        ("store export table.parquet --store unused.sqlite", "unused.sqlite: holds no replies, and nothing was written"),
        ("tasks add mine empty.jsonl", "empty.jsonl: no rows; give at least one"),
        ("run empty.yaml", "empty.yaml: expected a mapping of keys to values"),
    ],
)
def test_nothing_is_no_success(arguments, part, tmp_path, monkeypatch, capsys):
    from zero_shot_distill.store.store import ResponseStore

    for name in ("empty.jsonl", "empty.yaml", "empty.sqlite"):
        (tmp_path / name).touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.md").write_text("Nothing that a run leaves.")
    for name, text in {"prompt-mixes/1.yaml": "a: 1", "query-results/cqa/train/1/responses.json": "{}\n"}.items():
        path = tmp_path / "broken" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    ResponseStore(tmp_path / "unused.sqlite").close()
    before = files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zsd", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith("zsd: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert files(tmp_path) == before  # nothing is left behind
