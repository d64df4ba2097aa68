"""Say where notebooks, exported modules and README are out of step: `python tools/check_sync.py [ROOT]`.

It sees modules that differ from their notebook, that no notebook writes (a renamed or deleted one), that are not there, that git
does not have yet although it has the notebook; two notebooks for one module; notebooks that are not clean; experiments without
exactly one cell tagged `parameters`; imports against the direction of the wings; a README that
index.ipynb does not say; links that lead nowhere. Nothing is written, nothing is run.
"""

import ast
import contextlib
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_readme import map_links, readme_text
from scratch import scratch_notebooks

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "zero_shot_distill"
MEND = "make export"


def notebooks(root: Path) -> list[Path]:
    "Every notebook under nbs/ that nbdev looks at, in reading order, without a user's own."
    own = set(scratch_notebooks(root))
    found = (path.relative_to(root) for path in (root / "nbs").rglob("*.ipynb") if path not in own)
    return sorted(root / path for path in found if not any(part[0] in "._" for part in path.parts))


def cells_of(notebook: Path) -> list[tuple[str, str, list[str]]]:
    "(cell type, source, tags) of each cell."
    return _cells_in(notebook.read_text(encoding="utf-8"))


# What a text says is found once, however often files with it are looked at.
@functools.cache
def _cells_in(text: str) -> list[tuple[str, str, list[str]]]:
    return [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in json.loads(text)["cells"]]


def two_notebooks_one_module(root: Path) -> list[str]:
    writers: dict[str, list[str]] = {}
    for notebook in notebooks(root):
        for kind, source, _ in cells_of(notebook):
            for module in re.findall(r"^\s*#\|\s*default_exp\s+(\S+)", source, re.MULTILINE) if kind == "code" else []:
                writers.setdefault(module, []).append(notebook.name)
    return [f"{' and '.join(names)} all say `#| default_exp {module}`" for module, names in sorted(writers.items()) if len(names) > 1]


def parameters_cells(root: Path) -> list[str]:
    problems = []
    for notebook in notebooks(root):
        if notebook.parent.name == "experiments":
            count = sum("parameters" in tags for _, _, tags in cells_of(notebook))
            if count != 1:
                problems.append(f"{notebook.relative_to(root)} has {count} cells tagged `parameters`; papermill needs exactly one")
    return problems


def stale_modules(root: Path) -> list[str]:
    "Export the notebooks into an empty package elsewhere and compare."
    with tempfile.TemporaryDirectory() as elsewhere:
        copy = Path(elsewhere)
        shutil.copy(root / "settings.ini", copy)
        for notebook in notebooks(root):
            target = copy / notebook.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(notebook, target)
        package = copy / PACKAGE
        package.mkdir()
        if (root / PACKAGE / "__init__.py").exists():
            shutil.copy(root / PACKAGE / "__init__.py", package)
        done = subprocess.run(
            [sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=copy, text=True, capture_output=True
        )
        if done.returncode:
            return [f"the notebooks do not export: {(done.stderr.strip() or 'no message').splitlines()[-1]}"]
        expected, found = (
            {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
            for folder in (package, root / PACKAGE)
        )
    problems = []
    for name in sorted(expected.keys() | found.keys()):
        path = f"{PACKAGE}/{name}"
        if name not in found:
            problems.append(f"{path} is missing: {MEND}")
        elif name not in expected:
            problems.append(f"{path} comes from no notebook: delete it, or bring its notebook back")
        elif expected[name] != found[name]:
            problems.append(f"{path} differs from its notebook: {MEND} (the notebook is the source; edits to the module are lost)")
    return problems


def modules_git_lacks(root: Path) -> list[str]:
    "Modules that git does not have although it has their notebook: whoever clones gets neither."
    listed = subprocess.run(["git", "ls-files", "nbs", PACKAGE], cwd=root, text=True, capture_output=True)
    if listed.returncode:
        return []  # no git here, e.g. an unpacked source archive
    tracked = set(listed.stdout.splitlines())
    problems = []
    for module in sorted((root / PACKAGE).rglob("*.py")):
        path = module.relative_to(root).as_posix()
        source = re.search(r"File to edit: (?:\.\./)+(\S+\.ipynb)", module.read_text(encoding="utf-8"))
        if source and (path in tracked) != (source[1] in tracked):
            lacking, had = (source[1], path) if path in tracked else (path, source[1])
            problems.append(f"git has {had} but not {lacking}: git add {lacking}")
    return problems


def unclean_notebooks(root: Path) -> list[str]:
    "Notebooks that `nbdev_clean` would change."
    return [
        f"{notebook.relative_to(root)} is not clean: {MEND}"
        for notebook in notebooks(root)
        if not _is_clean(notebook.read_text(encoding="utf-8"))
    ]


@functools.cache
def _is_clean(text: str) -> bool:
    from nbdev.clean import clean_nb

    cleaned = json.loads(text)
    clean_nb(cleaned, allowed_cell_metadata_keys=["tags"])
    return cleaned == json.loads(text)


def stale_readme(root: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        if (root / "README.md").read_text(encoding="utf-8") == readme_text(root / "nbs" / "index.ipynb"):
            return []
    return [f"README.md is not what nbs/index.ipynb says: {MEND}"]


def dead_links(root: Path) -> list[str]:
    "Relative links of notebooks and of the repository's pages that lead to no file."
    pages = [(path, text) for path in notebooks(root) for kind, text, _ in cells_of(path) if kind == "markdown"]
    pages += [
        (path, path.read_text(encoding="utf-8"))
        for path in map(root.joinpath, ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
        if path.is_file()
    ]
    links = dict.fromkeys((path, link) for path, text in pages for link in _links_in(text))
    return [f"{path.relative_to(root)}: the link {link} leads nowhere" for path, link in links if not (path.parent / link).exists()]


@functools.cache
def _links_in(text: str) -> list[str]:
    links: list[str] = []
    map_links(text, lambda link: links.append(link) or link)
    return links


def imports_against_the_direction(root: Path) -> list[str]:
    "Modules that import from a wing with no smaller number than their own, or from a package instead of a module."
    floors = {}
    for entry in (root / "nbs").iterdir():
        if found := re.fullmatch(r"(\d)\d?_(\w+)(?:\.ipynb)?", entry.name):
            floors[found[2]] = int(found[1])
    problems = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        wing = path.relative_to(root / PACKAGE).parts[0].removesuffix(".py")
        if wing not in floors or path.name == "__init__.py":
            continue
        package = ".".join((PACKAGE, *path.relative_to(root / PACKAGE).parent.parts))
        for node in _imports_in(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.ImportFrom):
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                named = (
                    [base]
                    if (root / Path(*base.split("."))).with_suffix(".py").is_file()
                    else [f"{base}.{alias.name}" for alias in node.names]
                )
            else:
                named = [alias.name for alias in node.names]
            for name in named:
                parts = name.split(".")
                if parts[0] != PACKAGE or name == PACKAGE:
                    continue
                where = f"{path.relative_to(root)}:{node.lineno} imports {name}"
                if not (root / Path(*parts)).with_suffix(".py").is_file():
                    problems.append(f"{where}, which is no module: import from the module that defines it")
                elif parts[1] != wing and floors.get(parts[1], -1) >= floors[wing]:
                    problems.append(f"{where}: only wings with a smaller number than {floors[wing]}, or its own, may be imported")
    return problems


@functools.cache
def _imports_in(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]


CHECKS = (
    two_notebooks_one_module,
    parameters_cells,
    unclean_notebooks,
    stale_modules,
    modules_git_lacks,
    imports_against_the_direction,
    stale_readme,
    dead_links,
)


def main(root: Path = ROOT) -> int:  # exit status
    problems = [problem for check in CHECKS for problem in check(root)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
