"How the tests are shared out where several processes run them (`make test` runs two)."

from pathlib import Path

import pytest

# Begun first, so that none of them is left over for the end.
LONG = ("test_pipeline.py", "test_cli.py", "test_docs.py", "test_student.py", "test_faults.py", "test_batch.py", "test_thesis_commands.py")
# One after the other: two servers of the embedded teacher at once slow each other down many times over.
EMBEDDED = ("test_pipeline.py", "test_teacher.py", "test_parse.py", "test_project.py")


def _file(item: pytest.Item) -> str:
    return Path(item.path).name


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    "A file stays in one process, which makes what its tests share once."
    if not config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: LONG.index(_file(item)) if _file(item) in LONG else len(LONG))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("embedded teacher" if _file(item) in EMBEDDED else _file(item)))
