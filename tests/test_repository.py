"What a whole checkout must keep: notebooks, modules and README in step, nothing of one machine in git, and a wheel that works elsewhere."

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import check_sync
import pytest
import yaml
from make_readme import map_links, readme_text
from repository import ROOT, copy_checkout, tracked_files

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def in_step(tmp_path_factory) -> Path:
    "A copy of what the sync check reads, as a git repository in step."
    tmp_path = tmp_path_factory.mktemp("in_step")
    for name in ("settings.ini", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("nbs", "data", "figures", check_sync.PACKAGE):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for arguments in (["init"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--message", "in step"]):
        git(tmp_path, *arguments)
    return tmp_path


def git(checkout: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(in_step: Path) -> Iterator[Path]:
    "The same, to change: afterwards it is as it was."
    yield in_step
    git(in_step, "reset", "--hard")
    git(in_step, "clean", "-fdx")


def problems(root: Path, *, exported: bool = True) -> list[str]:
    "What the checks say; without those that read all exported modules, which take longest, where only something else was changed."
    of_modules = (check_sync.stale_modules, check_sync.imports_against_the_direction)
    return [problem for check in check_sync.CHECKS if exported or check not in of_modules for problem in check(root)]


def write_notebook(path: Path, *cells: str, tags: tuple[str, ...] = ()) -> None:
    listed = [
        {
            "cell_type": "code",
            "id": f"cell{i}",
            "metadata": {"tags": list(tags)} if tags else {},
            "execution_count": None,
            "outputs": [],
            "source": [cell],
        }
        for i, cell in enumerate(cells)
    ]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": listed, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")


# --- notebooks, modules, README -------------------------------------------------------------------------------------------------


@pytest.mark.slow  # `make check`, with which `make test` begins, is the same
def test_checkout_is_in_step():
    assert problems(ROOT) == []


OWN = ["nbs/1_task/Untitled.ipynb", "nbs/experiments/Untitled1.ipynb", "nbs/my look.ipynb"]


def write_own_notebooks(checkout: Path) -> None:
    "As `make lab` makes them: not clean, not formatted, with a link that leads nowhere. Git does not have them, and no module comes from them."
    for name in OWN:
        write_notebook(checkout / name, "import  os, json\n1/0", "#| hide\nx=1")
        notebook = json.loads((checkout / name).read_text(encoding="utf-8"))
        notebook["cells"][0]["execution_count"] = 3
        notebook["cells"].append({"cell_type": "markdown", "id": "text", "metadata": {}, "source": ["[gone](nowhere.md)"]})
        (checkout / name).write_text(json.dumps(notebook), encoding="utf-8")


def test_modules_out_of_step_are_seen(checkout):
    "Edited by hand, without a notebook, of a notebook that was renamed, not exported yet: each is named, and nothing of a user's own notebooks."
    write_own_notebooks(checkout)
    assert check_sync.imports_against_the_direction(checkout) == []
    nbs, task = checkout / "nbs" / "1_task", checkout / check_sync.PACKAGE / "task"
    with (task / "numbers.py").open("a") as module:
        module.write("\nedited = True\n")
    (nbs / "01_rows.ipynb").unlink()
    (nbs / "02_task.ipynb").rename(nbs / "02_assignment.ipynb")
    write_notebook(checkout / "nbs" / "90_fresh.ipynb", "#| default_exp fresh", "#| export\nfresh = 1")
    said = check_sync.stale_modules(checkout)
    for name, what in (
        ("numbers", "differs from its notebook"),
        ("rows", "comes from no notebook"),
        ("task", "differs from its notebook"),
    ):
        assert any(f"task/{name}.py {what}" in problem for problem in said), name
    assert any("fresh.py is missing" in problem for problem in said)
    assert [problem for problem in said if not re.search(r"task/(numbers|rows|task)\.py|fresh\.py|_modidx\.py", problem)] == []


def test_module_that_git_does_not_have_is_seen(checkout):
    module = f"{check_sync.PACKAGE}/task/task.py"
    subprocess.run(["git", "rm", "--quiet", "--cached", module], cwd=checkout, check=True)
    assert problems(checkout, exported=False) == [f"git has nbs/1_task/02_task.ipynb but not {module}: git add {module}"]


def test_two_notebooks_for_one_module_are_seen(checkout):
    write_notebook(checkout / "nbs" / "90_again.ipynb", "#| default_exp task.task", "#| export\nagain = 1")
    assert any(
        "02_task.ipynb and 90_again.ipynb all say `#| default_exp task.task`" in problem for problem in problems(checkout, exported=False)
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from zero_shot_distill.teacher.teacher import Teacher", "only wings with a smaller number than 1"),
        ("from zero_shot_distill.store.store import ResponseStore", "only wings with a smaller number than 1"),
        ("from zero_shot_distill.core import files", None),
        ("from zero_shot_distill import core", "which is no module"),
    ],
)
def test_import_against_the_direction_is_seen(checkout, line, said):
    module = checkout / check_sync.PACKAGE / "task" / "task.py"
    module.write_text(f"{module.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    found = check_sync.imports_against_the_direction(checkout)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_unclean_notebook_is_seen(checkout):
    path = checkout / "nbs" / "1_task" / "02_task.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["execution_count"] = 7
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert problems(checkout, exported=False) == ["nbs/1_task/02_task.ipynb is not clean: make export"]


@pytest.mark.parametrize("tagged", [0, 2])
def test_experiment_needs_exactly_one_parameters_cell(checkout, tagged):
    write_notebook(checkout / "nbs" / "experiments" / "odd.ipynb", *["n = 1"] * max(tagged, 1), tags=("parameters",) if tagged else ())
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    assert problems(checkout, exported=False) == [
        f"nbs/experiments/odd.ipynb has {tagged} cells tagged `parameters`; papermill needs exactly one"
    ]


def test_notebooks_of_ones_own_are_left_alone(checkout):
    "By all checks; those of modules are tried above, with such notebooks there."
    for tool in ("Makefile", "pyproject.toml", "tools"):
        (shutil.copytree if (ROOT / tool).is_dir() else shutil.copy)(ROOT / tool, checkout / tool)
    write_own_notebooks(checkout)
    assert problems(checkout, exported=False) == []

    def said(tool: str) -> str:
        return subprocess.run([sys.executable, "tools/scratch.py", tool], cwd=checkout, capture_output=True, text=True, check=True).stdout

    options = said("ruff").split()
    for command in (["check", "nbs"], ["format", "--check", "nbs"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", *options], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    pattern = said("nbdev").strip().removeprefix("--skip_file_re=")
    passed_over = sorted(path.name for path in (checkout / "nbs").rglob("*.ipynb") if re.search(pattern, path.name))
    assert passed_over == sorted(Path(name).name for name in OWN)


def test_a_notebook_is_called_like_its_module():
    for notebook in sorted((ROOT / "nbs").glob("**/[0-9]*_*.ipynb")):
        cells = [source for _, source, _ in check_sync.cells_of(notebook)]
        (module,) = re.findall(r"^#\| default_exp ([\w.]+)", "\n".join(cells), re.MULTILINE)
        name = module.rpartition(".")[2]
        assert cells[0].splitlines()[0] == f"# {name}", notebook.name
        assert re.sub(r"^\d+_", "", notebook.stem) == name, notebook.name


def test_readme_is_what_the_index_notebook_says():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme_text()


def test_edited_readme_is_seen(checkout):
    (checkout / "README.md").write_text("# Mine\n", encoding="utf-8")
    assert problems(checkout, exported=False) == ["README.md is not what nbs/index.ipynb says: make export"]


def test_link_that_leads_nowhere_is_seen(checkout):
    write_notebook(checkout / "nbs" / "tutorials" / "lost.ipynb", "x = 1")
    path = checkout / "nbs" / "tutorials" / "lost.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    text = "[gone](../99_gone.ipynb#there) [here](../index.ipynb) `[code](nowhere.md)` [web](https://a.org/x)"
    notebook["cells"].insert(0, {"cell_type": "markdown", "id": "text", "metadata": {}, "source": [text]})
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert problems(checkout, exported=False) == []  # as long as it is a user's own
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    assert problems(checkout, exported=False) == ["nbs/tutorials/lost.ipynb: the link ../99_gone.ipynb leads nowhere"]


def test_links_move_and_code_stays():
    text = "[a](00_task.ipynb#x) ![b](../figures/b.png) [c](https://c.org) [d](#d) `[e](e.md)`\n```\n[f](f.md)\n```\n"
    moved = "[a](nbs/00_task.ipynb#x) ![b](nbs/../figures/b.png) [c](https://c.org) [d](#d) `[e](e.md)`\n```\n[f](f.md)\n```\n"
    assert map_links(text, lambda path: f"nbs/{path}") == moved


def test_files_that_the_readme_links_to_exist():
    links = []
    map_links((ROOT / "README.md").read_text(encoding="utf-8"), lambda path: links.append(path) or path)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_makefile_has_what_the_readme_calls():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        called = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
        assert {one or other for one, other in called} <= targets


# --- nothing of one machine -----------------------------------------------------------------------------------------------------


def test_no_machine_path_or_registry_host_in_git():
    home = re.compile(
        r"/(?:home|Users)/\w+/|/root/|/work/\w|/tmp/(?!x\b)\w+/|[A-Z]:\\\\Users|/site-packages/"
        r"|\b(?:pypi|files|registry|artifactory|nexus)[\w.-]*\.(?:internal|local|corp)\b|\b(?:index-url|find-links)\s*="
        r"|\bhttps?://(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d"
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__) or path.suffix in (".png", ".svg"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in home.finditer(text)]
        found += [f"{path.relative_to(ROOT)}: {here}" for here in {str(ROOT), str(Path.home())} - {"/", "/root"} if here in text]
    assert found == []


def test_no_output_of_an_error_is_saved():
    for notebook in check_sync.notebooks(ROOT):
        outputs = [output for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] for output in cell.get("outputs", [])]
        assert not any(output["output_type"] == "error" for output in outputs), notebook.name


# --- what others read of the package --------------------------------------------------------------------------------------------


def settings() -> configparser.SectionProxy:
    "The facts about the package."
    found = configparser.ConfigParser(delimiters=["="])
    found.read(ROOT / "settings.ini", encoding="utf-8")
    return found["DEFAULT"]


def test_citation_says_what_the_settings_say():
    "The rules of the format (1.2.0): its required keys, and the types of those that are here; `cffconvert --validate` agreed when it was written."
    cited, facts = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")), settings()
    assert {"cff-version": "1.2.0", "type": "software", "license": "Apache-2.0"}.items() <= cited.items()
    assert all(isinstance(value, str) for name, value in cited.items() if name not in ("authors", "keywords"))
    assert cited["message"]
    for name, fact in {"title": "title", "version": "version", "abstract": "description", "repository-code": "git_url"}.items():
        assert cited[name] == facts[fact], name
    assert cited["authors"] == [{"name": facts["author"]}]
    assert cited["keywords"] == facts["keywords"].split()
    assert cited["url"] == facts["doc_host"] + facts["doc_baseurl"]


def test_measured_figures_stand_in_the_benchmark_tables():
    "Each figure with a decimal point, and each interval, that the changelog's section gives."
    changes, tables = ((ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "tests/benchmarks/README.md"))
    measured = changes.split("### What was measured\n")[1].partition("\n### ")[0]
    figures = re.findall(r"\[[^]]*\d\]|\d+\.\d+(?: ± [\d.]+)?", measured)
    assert len(figures) > 8
    assert [figure for figure in figures if figure not in tables] == []


# --- the image of JupyterLab ----------------------------------------------------------------------------------------------------


def image_copies() -> list[list[str]]:
    "What the image takes from the checkout: for each stage of the Dockerfile the files and folders."
    stages = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))[1:]
    lines = [re.findall(r"(?m)^COPY (?!--from)(?:--\S+ )*(.+) \S+$", stage) for stage in stages]
    return [[name for line in of_stage for name in line.split()] for of_stage in lines]


def test_image_takes_only_what_is_there_and_may_be_sent():
    "Each path is in git, and let through by .dockerignore, which keeps out everything else: keys and what was paid for."
    tracked = [path.relative_to(ROOT) for path in tracked_files()]
    first, *let_through = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert first == "*"
    names = [name for of_stage in image_copies() for name in of_stage]
    assert "nbs/tutorials" in names
    for name in names:
        assert any(path.is_relative_to(name) for path in tracked), name
        assert f"!{name}" in let_through, name
    assert {line[1:] for line in let_through if line.startswith("!")} == set(names)


def test_image_is_run_by_a_user_and_holds_no_secret():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if not line.startswith("#")]
    (user,) = [line for line in said if line.startswith("USER ")]
    assert user != "USER root"
    assert said.index(user) < next(place for place, line in enumerate(said) if line.startswith("CMD "))
    assert not any(re.match(r"(ARG|ENV) ", line) or re.search(r"(?i)token=|key=|password|https?://", line) for line in said)


distributions_of = cache(packages_distributions)  # it reads all that is installed


def imported_by(source: str) -> set[str]:  # distributions
    "Name the packages that some code imports, wherever it does."
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level and node.module]
    return {one.lower() for name in names for one in distributions_of().get(name.partition(".")[0], ())}


def test_what_users_run_needs_no_package_of_the_developers():
    "The modules, and the notebooks that readers have from the image or open elsewhere, where only the requirements are installed."
    needed, optional, dev = (
        {re.match(r"[\w.-]+", one)[0].lower() for name in names for one in settings()[name].split()}
        for names in (("requirements",), ("onnx_requirements", "ray_requirements", "gguf_requirements"), ("dev_requirements",))
    )
    for path in sorted((ROOT / "zero_shot_distill").rglob("*.py")):
        assert not imported_by(path.read_text(encoding="utf-8")) & (dev - needed - optional), path
    for path in sorted((ROOT / "nbs").glob("*/*.ipynb")):
        if path.parent.name in ("tutorials", "experiments"):
            cells = [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
            source = "\n".join("".join(cell) for cell in cells)
            assert not imported_by(source) & (dev - needed), path


def test_image_builds_the_same_wheel(distributions, tmp_path):
    "From the files of its first stage alone."
    for name in image_copies()[0]:
        for path in tracked_files():
            if (part := path.relative_to(ROOT)).is_relative_to(name):
                (tmp_path / "source" / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "source" / part)
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tmp_path / "source"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert sorted(zipfile.ZipFile(wheel).namelist()) == sorted(zipfile.ZipFile(distributions[1]).namelist())


# --- the wheel ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    "The source distribution, and the wheel that is built from it alone."
    source = copy_checkout(tmp_path_factory.mktemp("source"))  # not in place: an old build/ would slip into the wheel
    made = tmp_path_factory.mktemp("made")
    build = "import setuptools.build_meta as backend, sys; backend.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, made], cwd=source, check=True, capture_output=True)
    (sdist,) = made.glob("*.tar.gz")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, sdist], check=True)
    (wheel,) = made.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> Path:
    "A clean environment elsewhere that has the wheel, and this environment's other packages by way of a .pth file."
    environment = tmp_path_factory.mktemp("elsewhere") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    subprocess.run([*PIP, "--python", environment / "bin" / "python", "install", "--no-deps", "--no-index", distributions[1]], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    # A path line, not addsitedir: the finder of the checkout's own editable install, which is a .pth file too, is not run.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (site_packages / "others.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    return environment


def test_wheel_from_the_source_distribution_has_every_module(installed, distributions):
    (package,) = installed.glob(f"lib/python*/site-packages/{check_sync.PACKAGE}")
    modules = {path.relative_to(ROOT / check_sync.PACKAGE) for path in tracked_files() if path.is_relative_to(ROOT / check_sync.PACKAGE)}
    assert modules
    assert [str(path) for path in sorted(modules) if not (package / path).is_file()] == []
    assert all(f"-{settings()['version']}" in path.name for path in distributions)


def test_distributions_pass_twine(distributions):
    pytest.importorskip("twine", reason="needs pip install 'zero_shot_distill[dev]'")
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *distributions], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_of_the_package_index_lead_into_the_repository(distributions):
    "Each names a file that git has, and a picture its bytes; the README itself has relative ones."
    with zipfile.ZipFile(distributions[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        shown = wheel.read(name).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", shown)
    site, tracked = settings()["git_url"], {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    ours = [link.removeprefix(f"{site}/").partition("#")[0].split("/", 2) for link in links if link.startswith(f"{site}/")]
    assert len(ours) > 20
    for kind, branch, path in ours:
        assert branch == settings()["branch"]
        assert path in tracked
        assert (kind == "raw") == path.endswith(".png")


def run_elsewhere(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([installed / "bin" / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True)


def test_wheel_brings_its_definitions(installed, tmp_path):
    code = "import zero_shot_distill.core.files as f; import zero_shot_distill.task.task as t; print(f.__file__, f.definitions_dir(), *t.list_tasks(), sep=chr(10))"
    done = run_elsewhere(installed, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    module, definitions, *tasks = done.stdout.splitlines()
    for path in (module, definitions):
        assert Path(path).resolve().is_relative_to(installed.resolve())
    assert "pocket_nli" in tasks


def test_wheel_has_every_definition_and_experiment(installed):
    (package,) = installed.glob(f"lib/python*/site-packages/{check_sync.PACKAGE}")
    wanted = {path.relative_to(ROOT) for path in tracked_files() if path.is_relative_to(ROOT / "data")}
    assert wanted
    assert [str(path) for path in sorted(wanted) if not (package / path).is_file()] == []
    experiments = [path.name for path in (ROOT / "nbs" / "experiments").glob("*.ipynb")]
    assert [name for name in experiments if not (package / "experiments" / name).is_file()] == []


def test_installed_zsd_works_in_an_empty_folder(installed, tmp_path):
    tasks = run_elsewhere(installed, tmp_path, "zsd", "tasks")
    assert tasks.returncode == 0, tasks.stderr
    assert "pocket_nli" in tasks.stdout
    shown = run_elsewhere(installed, tmp_path, "zsd", "--help")
    assert shown.returncode == 0, shown.stderr
    for command in ("tasks", "templates", "run"):
        assert command in shown.stdout
    assert list(tmp_path.iterdir()) == []
