"In which order the tests run where several processes share them out (`make test` runs three, a file in one of them)."

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM

# Tests that import nbformat would build a grammar of web addresses for three seconds, in each process; see zero_shot_distill/study/papermill.py.
sys.modules.setdefault("rfc3987_syntax", None)

# Begun first, the longest before the others, so that none of them is left over for the end.
LONG = (
    "test_docs.py",
    "test_pipeline.py",
    "test_tutorials.py",
    "test_student_commands.py",
    "test_thesis_commands.py",
    "test_figures_command.py",
    "test_figure_links.py",
    "test_publish.py",
    "test_batch.py",
    "test_training.py",
    "test_repository.py",
    "test_faults.py",
    "test_own_data.py",
    "test_teacher.py",
    "test_asking.py",
    "test_ner_student.py",
    "test_secrecy.py",
    "test_entity_pipeline.py",
    "test_explorer.py",
    "test_opro.py",
    "test_release.py",
    "test_task_commands.py",
    "test_select.py",
    "test_upkeep.py",
    "test_reader.py",
    "test_sweep.py",
    "test_cli.py",
    "test_student.py",
    "test_thesis.py",
    "test_project.py",
    "test_stored.py",
    "test_asking_commands.py",
    "test_search_comparison.py",
    "test_student_models.py",
    "test_weights.py",
    "test_statistics.py",
    "test_few_gold.py",
    "test_sweep_taggers.py",
    "test_opro_peers.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    "Put the files that take long first."

    def place(item: pytest.Item) -> int:
        name = Path(item.path).name
        return LONG.index(name) if name in LONG else len(LONG)

    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=place)


def pytest_configure() -> None:
    "Collect no garbage while tests are read: all that this imports and makes stays, and looking through it took a third of the time."
    gc.disable()


def pytest_collection_finish() -> None:
    "Garbage is collected again, but not among what is there by now."
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    "Compute with one thread of torch, also in other fixtures of a module: as many threads, the same sums."
    import torch  # here: most tests need none

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def browser():
    "A browser for the tests of a file."
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()
