"""Build the documentation into _docs/: `python tools/build_docs.py [--sphinx] [--experiments NAME,NAME]`.

With Quarto this is `nbdev_docs`. Without it (the usual case) nbdev prepares the notebooks, this script turns them into pages for Sphinx
with myst-nb, and a warning is an error. nbdev's own commands would try to install Quarto with sudo.
Experiments whose figures are out of date are run first, for the results that their pages show; where some are named, only these:
the pages of the others show what an earlier build left, or their code alone, which is enough to look at prose and links.
"""

import argparse
import gc
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import command_pages
import yaml
from api_entry import Module
from make_readme import ROOT, map_links
from scratch import scratch_notebooks, skipped_names

PACKAGE_DIR = ROOT / "zero_shot_distill"
PROJECT_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
# The sidebar: four kinds of pages kept apart, the reference last, since it is long. What no caption names is a module.
START, TUTORIALS, HOW_TO, EXPLANATIONS, REFERENCE, MODULES, ABOUT = (
    "",
    "Tutorials",
    "How-to",
    "Explanations",
    "Reference",
    "Modules",
    "About this project",
)
CAPTIONS = {"getting_started.ipynb": START, "tutorials": TUTORIALS, "howto": HOW_TO, "explanations": EXPLANATIONS, "experiments": REFERENCE}
FIGURES = ROOT / "build" / "figures"  # of the experiments; a later build runs again only what has changed
Cell = dict  # a notebook cell as JSON


class Site:
    "The pages, as they gather in one source folder."

    def __init__(self, source_dir: Path):
        self.source_dir = source_dir
        self.modules = {
            module.name.partition(".")[2]: module
            for module in (Module(path, PACKAGE_DIR) for path in sorted(PACKAGE_DIR.rglob("[a-z]*.py")))
        }
        owners: dict[str, list[str]] = {}
        for path, module in self.modules.items():
            # A command's function is called like the library's, e.g. `forecast`; prose means the library's.
            for name in module.public if not path.startswith("cli.") else ():
                owners.setdefault(name, []).append(f"{module.name}.{name}")
        self.targets = {name: found[0] for name, found in owners.items() if len(found) == 1}
        self.ambiguous = {name for name, found in owners.items() if len(found) > 1}
        self.pages: dict[str, list[str]] = {caption: [] for caption in (START, TUTORIALS, HOW_TO, EXPLANATIONS, REFERENCE, MODULES, ABOUT)}
        self.folders: dict[str, list[str]] = {}  # page that lists a folder -> the folder's pages, which the sidebar shows below it
        self.heads: dict[str, tuple[str, str]] = {}  # page -> title, what it says of itself
        self.without_alt: list[str] = []  # pages with a figure that says nothing to those who cannot see it

    def add_notebook(
        self,
        prepared: Path,  # as nbdev prepared it, under _proc/
        original: Path,  # the notebook itself
    ) -> None:
        "Turn one notebook into a page."
        name = original.relative_to(ROOT / "nbs").as_posix()
        exported = re.search(r"#\|\s*default_exp\s+([\w.]+)", original.read_text(encoding="utf-8"))
        module = self.modules.get(exported[1]) if exported else None
        results = _results(original.stem) if name.startswith("experiments/") else {}
        cells: list[Cell] = []
        waiting: list[str] = []  # names whose entries follow; nbdev puts those of one cell in reverse order
        for cell in json.loads(prepared.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if module and (shown := re.search(r"^show_doc\((\w+)\)", source, re.MULTILINE)):
                waiting.append(shown[1])
                continue
            cells += self._entries(module, waiting)
            waiting = []
            cells += self._page_cell(cell | results.get(source, {}), source, name, module)
        cells += self._entries(module, waiting)
        if name == "index.ipynb":
            cells.append(_markdown("TOCTREE"))  # filled in when every page is known
        elif name.startswith("experiments/"):
            self.folders.setdefault("experiments/figures.md", []).append(name)
        elif (caption := CAPTIONS.get(name.partition("/")[0])) is not None:
            self.pages[caption].append(name)
        elif "/" in name:
            self.folders.setdefault(f"modules/{_wing(name)}.md", []).append(name)
        else:
            self.pages[MODULES].append(name)
        self._write(name, cells)

    def add_text(self, path: Path) -> None:
        "Take a Markdown file of the repository as a page."
        name = path.relative_to(ROOT).as_posix()
        self.pages[ABOUT].append(name)
        target = self.source_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._with_links(path.read_text(encoding="utf-8"), posixpath.dirname(name)), encoding="utf-8")

    def add_commands(self) -> None:
        "Make a page of each command, and one that lists them."
        found = list(command_pages.commands())
        for name, one in found:
            self._add("commands/" + command_pages.file_name(name), command_pages.page(name, one))
        self._list("commands/index.md", command_pages.overview(found), ["commands/" + command_pages.file_name(name) for name, _ in found])
        self._add("commands/messages.md", command_pages.messages(PACKAGE_DIR))
        self.pages[REFERENCE] += ["commands/index.md", "experiments/figures.md", "commands/messages.md"]

    def add_figures(self) -> None:
        "Show the figures of all experiments on a page, which also lists them."
        from zero_shot_distill.study.gallery import index_html

        body = index_html(FIGURES, "{}.html".format, "../figures/")
        names = self.folders["experiments/figures.md"]
        head = f"# Experiments\n\n{{.lead}}\nWhat each experiment asks, and what it found.\n\n{self._table('question', names)}"
        self._list("experiments/figures.md", f"{head}\n\n## Figures\n\n```{{raw}} html\n{body}\n```\n", names)

    def add_modules(self) -> None:
        "List the modules of each folder on a page."
        told = _told_of_wings()
        for page, names in self.folders.items():
            if page.startswith("modules/"):
                wing = posixpath.basename(page).removesuffix(".md")
                self._list(page, f"# {wing}\n\n{{.lead}}\n{told.get(wing, '').capitalize()}\n\n{self._table('what it does', names)}", names)
                self.pages[MODULES].append(page)

    def _table(self, what: str, names: list[str]) -> str:
        rows = (f"| [{self.heads[name][0]}](/{name}) | {self.heads[name][1].replace('|', chr(92) + '|')} |" for name in names)
        return "\n".join([f"| page | {what} |", "|---|---|", *rows])

    def _list(self, page: str, text: str, names: list[str]) -> None:
        self._add(page, f"{text}\n\n{_toctree('', ['/' + name for name in names])}\n")

    def _add(self, page: str, text: str) -> None:
        target = self.source_dir / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        "Write the table of contents into the home page, in the order in which that links to the pages."
        order = {name: place for place, name in enumerate(_links_of_the_home_page())}
        wings = {_wing(name): place for name, place in reversed(order.items()) if "/" in name}

        def place_of(name: str) -> int:
            wing = _wing(name) if name[0].isdigit() else posixpath.basename(name).removesuffix(".md")
            return order.get(name, wings.get(wing, len(order)))

        in_order = {
            caption: names if caption in (REFERENCE, ABOUT) else sorted(names, key=place_of) for caption, names in self.pages.items()
        }
        trees = [_toctree(caption, names) for caption, names in in_order.items() if names]
        index = self.source_dir / "index.ipynb"
        index.write_text(index.read_text(encoding="utf-8").replace('"TOCTREE"', json.dumps("\n\n".join(trees))), encoding="utf-8")

    def _entries(self, module: Module | None, names: list[str]) -> list[Cell]:
        ordered = sorted(set(names), key=lambda name: module.nodes[name].lineno)
        return [_markdown(self._with_references(self._with_whole_names(module.entry(name), module))) for name in ordered]

    def _with_whole_names(self, entry: str, module: Module) -> str:
        "Names that several modules have, written in signatures with the module that is meant; Sphinx shows their last part."
        for name in self.ambiguous & module.homes.keys():
            whole = f"{module.homes[name]}.{name}"
            entry = re.sub(r"(?m)^(:::+\{py:\w+\} \w+.*|:type: .*)$", lambda line: _after_name(line[0], name, whole), entry)  # noqa: B023
        return entry

    def _page_cell(self, cell: Cell, source: str, name: str, module: Module | None) -> list[Cell]:
        if not source.strip() or source.startswith("<!-- WARNING"):
            return []
        if cell["cell_type"] == "raw":
            front_matter = yaml.safe_load(source.strip().strip("-"))
            self.heads[name] = (front_matter["title"], front_matter.get("description") or "")
            return [_markdown(_head(front_matter, module))]
        if cell["cell_type"] == "markdown":
            return [_markdown(self._with_references(self._with_links(source, posixpath.dirname(posixpath.join("nbs", name)))))]
        directives = dict(re.findall(r"^#\|\s*([\w-]+):\s*(.+)", source, re.MULTILINE))
        source = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip()
        tags = cell["metadata"].get("tags", [])
        tags += ["remove-input"] if directives.get("echo") == "false" or not source else []
        tags += ["remove-output"] if directives.get("output") == "false" else []
        tags += ["hide-input"] if name.startswith("experiments/") else []  # the results are the page, the code is a click away
        shown = [(_alt_of(output, directives.get("fig-alt", "")), output) for output in cell.get("outputs", [])]
        self.without_alt += [name for alt, _ in shown if alt == ""]
        # Sphinx gives all figures of a cell one alt text: each figure after the first one comes in a cell of its own, without the code.
        parts: list[tuple[str, list[dict]]] = [("", [])]
        for alt, output in shown:
            if alt and parts[-1][0]:
                parts.append((alt, []))
            parts[-1] = (parts[-1][0] or alt or "", [*parts[-1][1], output])
        made = []
        for place, (alt, outputs) in enumerate(parts):
            hidden = [*(tag for tag in tags if tag != "hide-input"), "remove-input"] if place else tags
            of_figure = {"mystnb": {"image": {"alt": alt}}} if alt else {}
            made.append(cell | {"source": source, "metadata": {"tags": hidden, **of_figure}} | ({"outputs": outputs} if shown else {}))
        return made

    def _with_links(
        self,
        text: str,
        folder: str,  # the text's folder in the repository
    ) -> str:
        "Relative links as seen from the page; a linked file that is no page comes along, a linked Markdown file becomes one."

        def change(path: str) -> str:
            repository_path = posixpath.normpath(posixpath.join(folder, path))
            target = ROOT / repository_path
            if target.is_file() and target.suffix != ".ipynb" and repository_path not in PROJECT_PAGES:
                if target.suffix == ".md" and repository_path not in self.pages[ABOUT]:
                    self.add_text(target)
                elif target.suffix != ".md":
                    copy = self.source_dir / _place(repository_path)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(target, copy)
            return posixpath.relpath(_place(repository_path), _place(folder) or ".")

        return map_links(text, change)

    def _with_references(self, text: str) -> str:
        "Backticked names of ours become links to their entries, except in headings, code blocks and signatures."
        lines, in_code = [], False
        for line in text.splitlines():
            in_code ^= line.startswith("```")
            if not in_code and not re.match(r"#|:::|\s{4}", line):
                # The first cell of a parameter table is the parameter's own name, whatever else is called so.
                own, line = re.match(r"(\| `\w+` \|)?(.*)", line).groups(default="")
                line = own + re.sub(r"(?<![`\[{}\w])`([A-Za-z_]\w*)(\(\))?`(?![`\]])", self._reference, line)
            lines.append(line)
        return "\n".join(lines)

    def _reference(self, match: re.Match) -> str:
        target = self.targets.get(match[1])
        return f"{{py:obj}}`{match[1]}{match[2] or ''} <{target}>`" if target else match[0]

    def _write(self, name: str, cells: list[Cell]) -> None:
        kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}, "language_info": {"name": "python"}}
        target = self.source_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        cells = [{key: value for key, value in cell.items() if key != "id"} for cell in cells]  # those that are made here have none
        notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}
        target.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def _run_experiments(
    names: list[str],  # none: all
) -> None:
    "Run the experiments as `make figures` does, but into a folder of the build, for the results that their pages show."
    from zero_shot_distill.study.experiments import find_notebooks, make_figures, plan_figures

    planned, left_out = plan_figures(find_notebooks(names), FIGURES)
    ends = make_figures([one for one in planned if not one.is_done], os.cpu_count() or 1)
    faults = left_out | {end.experiment.name: end.fault or end.left_out for end in ends if end.fault or end.left_out}
    if faults:
        sys.exit("\n".join(f"{name}: {fault}" for name, fault in faults.items()))


def _results(
    name: str,  # of an experiment
) -> dict[str, Cell]:  # source of a code cell -> its outputs
    "Read the outputs of an experiment, whose notebook is kept without them; none where it was not run."
    executed = FIGURES / "executed" / f"{name}.ipynb"
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.is_file() else []
    return {"".join(cell["source"]): {"outputs": cell["outputs"]} for cell in cells if cell["cell_type"] == "code"}


def _after_name(head: str, name: str, whole: str) -> str:
    "A directive's first line with `name` written as `whole`, except where it is what the directive describes."
    start = re.match(r":::+\{py:\w+\} \w+|:type: ", head).end()
    return head[:start] + re.sub(rf"(?<![\w.'\"]){name}\b(?!=)(?!: )", whole, head[start:])


def _toctree(caption: str, names: list[str]) -> str:
    documents = "\n".join(posixpath.splitext(name)[0] for name in names)
    options = ":hidden:" + f"\n:caption: {caption}" * bool(caption)
    return f":::{{toctree}}\n{options}\n\n{documents}\n:::"


def _wing(
    notebook: str,  # path below nbs/, e.g. 0_core/01_files.ipynb
) -> str:
    "The sub-package that a notebook belongs to."
    return re.sub(r"^\d+_", "", notebook.partition("/")[0])


def _home_page() -> str:
    index = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))
    return "\n\n".join("".join(cell["source"]) for cell in index["cells"])


def _links_of_the_home_page() -> list[str]:
    "The notebooks that the home page links to, in its order."
    return re.findall(r"\]\(([^)#:]+\.ipynb)[)#]", _home_page())


def _told_of_wings() -> dict[str, str]:  # wing -> what it holds
    "What the home page's table says of each sub-package."
    return {_wing(name): text for name, text in re.findall(r"(?m)^\| \[[^]]+\]\((\d_[^)]+)\) \| (.+) \|$", _home_page())}


def _place(repository_path: str) -> str:
    "Where a file of the repository stands on the site: the notebooks are its top."
    return re.sub(r"^nbs(/|$)", "", repository_path)


def _markdown(source: str) -> Cell:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _alt_of(
    output: dict,  # of a cell
    of_cell: str,  # what its figures show; empty: they say it themselves
) -> str | None:  # None: no figure; empty: one that says nothing to those who cannot see it
    "Find what a figure says to those who cannot see it."
    kinds = [kind for kind in ("image/png", "image/svg+xml") if kind in output.get("data", {})]
    if not kinds:
        return None
    return of_cell or next(filter(None, (output.get("metadata", {}).get(kind, {}).get("alt", "") for kind in kinds)), "")


def _head(front_matter: dict, module: Module | None) -> str:
    lines = [f"# {front_matter['title']}"]
    if front_matter.get("description"):
        lines.append(f"{{.lead}}\n{front_matter['description']}")
    if module:
        lines.append(f":::{{py:module}} {module.name}\n:::")
    return "\n\n".join(lines)


def with_quarto() -> int:
    # nbdev_docs would write README.md in its own way where that is older than the index notebook.
    (ROOT / "README.md").touch()
    return subprocess.run([Path(sys.executable).parent / "nbdev_docs"], cwd=ROOT).returncode


def with_sphinx(experiments: list[str]) -> int:
    os.chdir(ROOT)
    from nbdev.config import get_config
    from nbdev.serve import proc_nbs
    from sphinx.cmd.build import main as sphinx_build

    # A tree of a page is a hundred thousand objects: looking for garbage each 700 of them took a quarter of the time.
    gc.set_threshold(100_000, 20, 20)
    # Entries come from the source (api_entry), so no cell needs to be run.
    get_config().d["skip_procs"] = "exec_show_docs"
    prepared_dir = proc_nbs(n_workers=0, force=True, skip_file_re=skipped_names(ROOT))
    build_dir = ROOT / "build" / "docs"  # ignored by git; myst-nb also writes beside its output folder
    source_dir, html_dir, out_dir = build_dir / "source", build_dir / "html", ROOT / "_docs"
    shutil.rmtree(build_dir, ignore_errors=True)
    site = Site(source_dir)
    for page in PROJECT_PAGES:
        site.add_text(ROOT / page)
    own = scratch_notebooks(ROOT)
    _run_experiments(experiments)
    for prepared in sorted(prepared_dir.rglob("*.ipynb")):
        original = ROOT / "nbs" / prepared.relative_to(prepared_dir)
        if original not in own:
            site.add_notebook(prepared, original)
    if site.without_alt:
        sys.exit(
            "figures without a text for those who cannot see them: "
            + ", ".join(sorted(set(site.without_alt)))
            + "; begin the cell with `#| fig-alt: what it shows`, or end it with `save_figure(..., alt=...)`"
        )
    site.add_figures()
    site.add_modules()
    site.add_commands()
    site.finish()
    status = sphinx_build(
        ["-q", "-W", "--keep-going", "-b", "html", "-c", "tools/sphinx", "-d", str(build_dir / "doctrees"), str(source_dir), str(html_dir)]
    )
    if status == 0:  # pages that did not build never replace those that did
        shutil.rmtree(out_dir, ignore_errors=True)
        html_dir.rename(out_dir)
        shutil.copytree(FIGURES, out_dir / "figures")
        print(f"_docs/index.html: {len(list(out_dir.rglob('*.html')))} pages; open it in a browser", file=sys.stderr)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sphinx", action="store_true", help="with Sphinx, where Quarto is there, too")
    parser.add_argument("--experiments", default="", metavar="NAME,NAME", help="with Sphinx: run these experiments alone")
    asked = parser.parse_args()
    if shutil.which("quarto") and not asked.sphinx:
        return with_quarto()
    return with_sphinx([name for name in asked.experiments.split(",") if name])


if __name__ == "__main__":
    sys.exit(main())
