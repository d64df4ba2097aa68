"The commands as pages: what each does, its arguments and options, an example; from the commands themselves."

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path


def commands() -> Iterator[tuple[str, object]]:
    "Each command with its whole name, e.g. (`store info`, the command)."
    from typer.main import get_command

    from zero_shot_distill.cli.main import app

    def below(group: object, before: str) -> Iterator[tuple[str, object]]:
        for name, command in sorted(group.commands.items()):
            if hasattr(command, "commands"):
                yield from below(command, f"{before}{name} ")
            else:
                yield f"{before}{name}", command

    yield from below(get_command(app), "")


def page(name: str, command: object) -> str:
    "One command as Markdown."
    text = textwrap.dedent(command.help or "").strip()
    first, _, rest = text.partition("\n")
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = " ".join(["zsd", name, *["[OPTIONS]"] * bool(options), *map(_argument, arguments)])
    parts = [f"# zsd {name}", f"{{.lead}}\n{first}", rest.strip(), f"```\n{usage}\n```"]
    if arguments:
        parts.append(_table("argument", [[_argument(one), *_told(one)] for one in arguments]))
    if options:
        parts.append(_table("option", [[" ".join([*one.opts, *one.secondary_opts]), *_told(one)] for one in options]))
    return "\n\n".join(filter(None, parts)) + "\n"


def overview(found: list[tuple[str, object]]) -> str:
    "The list of all commands."
    about = {name: (command.help or "").strip().partition("\n")[0] for name, command in found}
    lines = [f"| [`zsd {name}`]({file_name(name)}) | {_cell(text)} |" for name, text in about.items()]
    head = "# Commands\n\n{.lead}\nWhat `zsd` does, command by command; `zsd COMMAND --help` says the same.\n"
    return "\n".join([head, "| command | what it does |", "|---|---|", *lines, ""])


def file_name(name: str) -> str:
    "The page's file, below `commands/`."
    return f"{name.replace(' ', '-')}.md"


_SAYING = {"BadParameter", "on_message", "say", "tell", "warn", "exit"}  # functions whose texts a user reads, besides what is raised
_LEAST_WORDS = 5


def messages(package: Path) -> str:
    "The texts of errors and warnings, so that a search finds them by their words; what varies is `…`."
    parts = ["# Messages", "{.lead}\nWhat an error or a warning says, and how to fix it. Parts that vary are shown as `…`."]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    public = {name: text for tree in trees.values() for name, text in _constants(tree).items() if not name.startswith("_")}
    for path, tree in trees.items():
        found = sorted(set(_messages_of(tree, public | _constants(tree))))
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        parts += [f"## {name}\n\n" + "\n".join(f"- {_code(text)}" for text in found)] * bool(found)
    return "\n\n".join(parts) + "\n"


def _constants(tree: ast.Module) -> dict[str, str]:
    "The texts that a module gives a name to."
    return {node.targets[0].id: text for node in tree.body if _is_named(node) and (text := _text_of(node.value, {}))}


def _is_named(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)


def _messages_of(
    tree: ast.AST,
    known: dict[str, str],  # name -> the text that it stands for
) -> Iterator[str]:
    for node in ast.walk(tree):
        says = isinstance(node, ast.Raise) or (
            isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _SAYING
        )
        for text in _texts_in(node, known) if says else ():
            if len(re.findall(r"[A-Za-z]{2,}", text)) >= _LEAST_WORDS:
                yield text


def _texts_in(node: ast.AST, known: dict[str, str]) -> Iterator[str]:  # whole texts, not the parts between what varies
    if text := _text_of(node, known):
        yield text
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts_in(child, known)


def _text_of(node: ast.AST, known: dict[str, str]) -> str:  # empty: no text
    if isinstance(node, ast.JoinedStr):
        text = "".join(part.value if isinstance(part, ast.Constant) else known.get(ast.unparse(part.value), "…") for part in node.values)
    else:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return " ".join(text.replace("`", "'").split())


_KINDS = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}


def _kind(one: object) -> str:
    "What an option takes; empty for a switch."
    annotation = getattr(one.type_descriptor.annotation, "__name__", "")
    return "" if getattr(one, "is_flag", False) or annotation == "bool" else one.metavar or _KINDS.get(annotation, "TEXT")


def _argument(one: object) -> str:
    name = one.metavar or one.name.upper()
    name += "..." * (one.nargs == -1)
    return name if one.required else f"[{name}]"


def _told(one: object) -> list[str]:
    default = one.default() if callable(one.default) else one.default
    is_said = bool(_kind(one)) and default not in (None, "")
    return [_code(_kind(one)), "required" if one.required else _code(str(default)) if is_said else "", _cell(one.help or "")]


def _table(what: str, rows: list[list[str]]) -> str:
    head = [[what, "value", "default", "what it does"], ["---"] * 4]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [*head, *([_code(name), *told] for name, *told in rows)])


def _code(text: str) -> str:
    return text and f"`{text}`"


def _cell(text: str) -> str:
    # An option's name as code, so that two hyphens stay two hyphens; a bar would end the cell.
    text = re.sub(r"(?<![`\w-])(--[a-z][\w-]*)(?![`\w])", r"`\1`", " ".join(text.split()))
    return text.replace("|", "\\|").replace("<", "\\<")
