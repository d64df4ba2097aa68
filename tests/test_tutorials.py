"Each tutorial runs by papermill, as a reader reruns it: a copy, in a folder of its own. `nbdev_test` leaves them out (nbs/tutorials/.notest)."

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from repository import ROOT

from zero_shot_distill.study.papermill import papermill

TUTORIALS = sorted((ROOT / "nbs" / "tutorials").glob("*.ipynb"))
FLAGGED = re.compile(r"#\|\s*(slow|eval:\s*false)\b")


def has_slow(path: Path) -> bool:
    return any(cell.source.startswith("#| slow") for cell in nbformat.read(path, as_version=4).cells)


def copy_of(path: Path, folder: Path, flags: str) -> Path:
    "Copy a tutorial without its outputs, and without the cells that are not run here."
    book = nbformat.read(path, as_version=4)
    left_out = [cell for cell in book.cells if (found := FLAGGED.match(cell.source)) and found[1] != flags]
    book.cells = [cell for cell in book.cells if cell not in left_out]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(book, folder / path.name)
    return folder / path.name


def kinds_of(book: Any) -> dict[str, set[str]]:  # id of a cell -> kinds of what it shows
    "Say what each cell shows, whatever it says in it."
    shown = {}
    for cell in book.cells:
        if cell.cell_type == "code" and cell.get("outputs"):
            shown[cell.id] = {kind for output in cell.outputs for kind in output.get("data", {output.get("name", "error"): ""})}
    return shown


@pytest.mark.parametrize(
    ("path", "flags"),
    [pytest.param(path, "", id=path.stem) for path in TUTORIALS]
    + [pytest.param(path, "slow", id=f"{path.stem}-slow", marks=pytest.mark.slow) for path in TUTORIALS if has_slow(path)],
)
def test_a_tutorial_runs_and_shows_what_is_kept_of_it(tmp_path, monkeypatch, path, flags):
    "It needs no key, writes nothing where it lies, and every cell that shows something on the page shows the same kinds of things again."
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    copy = copy_of(path, tmp_path, flags)
    before = path.read_bytes()
    papermill.execute_notebook(
        str(copy),
        str(tmp_path / "executed.ipynb"),
        cwd=str(tmp_path),
        kernel_name="python3",
        extra_arguments=["--log-level=CRITICAL"],
        progress_bar=False,
        log_output=False,
    )
    made = kinds_of(nbformat.read(tmp_path / "executed.ipynb", as_version=4))
    kept = kinds_of(nbformat.read(path, as_version=4))
    ran = {cell.id for cell in nbformat.read(copy, as_version=4).cells}
    assert {id: kinds for id, kinds in kept.items() if id in ran} == {id: kinds for id, kinds in made.items() if id in kept}
    assert "stderr" not in set().union(*made.values())
    assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} <= {path.name, "executed.ipynb"}
