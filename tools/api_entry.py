"""One symbol of an exported module -> a documentation entry with its parameter table, read from the source alone.

nbdev's own `show_doc` drops what stands in brackets (`tuple[str, ...]` becomes `tuple`), shows no fields of a pydantic model and no methods.
"""

import ast
import inspect
import re
import tokenize
from dataclasses import dataclass
from importlib.util import resolve_name
from io import StringIO
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Parameter:
    "One row of a parameter table."

    name: str
    type: str  # as the source writes it; "" where it has none
    default: str  # likewise
    details: str  # the trailing comment


class Module:
    "A Python file, its top-level functions and classes, and the comment at the end of each line."

    def __init__(
        self,
        path: Path,
        package_dir: Path | None = None,  # the top of its package; None: the folder that it lies in
    ):
        source = path.read_text(encoding="utf-8")
        top = package_dir or path.parent
        self.name = ".".join([top.name, *path.relative_to(top).with_suffix("").parts])
        tree = ast.parse(source)
        self.nodes = {node.name: node for node in tree.body if isinstance(node, FunctionNode | ast.ClassDef)}
        self.homes = {name: self.name for name in self.nodes}  # each class or function that the module knows -> where it is defined
        package = self.name.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                home = resolve_name("." * node.level + (node.module or ""), package)
                self.homes |= {alias.asname or alias.name: home for alias in node.names}
        tokens = tokenize.generate_tokens(StringIO(source).readline)
        self.comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}

    @property
    def public(self) -> list[str]:
        return [name for name in self.nodes if not name.startswith("_")]

    def entry(
        self,
        symbol: str,  # top-level name of the module
    ) -> str:  # MyST text
        "The entry of a function or a class; a class brings its fields and its public methods."
        node = self.nodes[symbol]
        if isinstance(node, FunctionNode):
            return self._function("function", symbol, node)
        methods = {part.name: part for part in node.body if isinstance(part, FunctionNode)}
        if "__init__" in methods:
            made_with = parameters = self._arguments(methods["__init__"])[1:]
        else:
            made_with = parameters = self._fields(node)
            if any(ast.unparse(base).endswith("Model") for base in node.bases):  # pydantic's are made by keyword
                made_with = [Parameter("*", "", "", ""), *parameters]
            elif not any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
                made_with = []  # attributes only
        body = [_docstring(node), _table(parameters)]
        for name, method in methods.items():
            if not name.startswith("_"):
                is_property = any(isinstance(mark, ast.Name) and "property" in mark.id for mark in method.decorator_list)
                body.append(self._function("property" if is_property else "method", name, method))
        head = f"{symbol}({_signature(made_with)})" if len(made_with) else symbol
        return _directive("class", head, body)

    def _function(self, kind: str, name: str, node: FunctionNode) -> str:
        arguments = self._arguments(node)
        options = []
        if kind != "function" and not any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list):
            arguments = arguments[1:]  # self or cls
            if any(isinstance(mark, ast.Name) and mark.id == "classmethod" for mark in node.decorator_list):
                options = [":classmethod:"]
        returns = _annotation(node.returns)
        if kind == "property":
            return _directive(kind, name, [_docstring(node)], [f":type: {returns}"] if returns else [])
        # The comment on what is returned stands behind the colon that ends the head, or, in a one-line head, before the body.
        head_end = node.returns.end_lineno if node.returns else node.lineno
        result = Parameter("*returns*", returns, "", self.comments.get(head_end, "")) if returns not in ("", "None") else None
        table = _table(arguments, result)
        arrow = f" -> {returns}" if returns else ""
        return _directive(kind, f"{name}({_signature(arguments)}){arrow}", [_docstring(node), table], options)

    def _arguments(self, node: FunctionNode) -> list[Parameter]:
        spec = node.args
        positional = spec.posonlyargs + spec.args
        defaults = [None] * (len(positional) - len(spec.defaults)) + spec.defaults
        rows = [self._row(argument.arg, argument, default) for argument, default in zip(positional, defaults, strict=True)]
        if spec.posonlyargs:
            rows.insert(len(spec.posonlyargs), Parameter("/", "", "", ""))
        if spec.vararg:
            rows.append(self._row(f"*{spec.vararg.arg}", spec.vararg, None))
        elif spec.kwonlyargs:
            rows.append(Parameter("*", "", "", ""))
        rows += [self._row(argument.arg, argument, default) for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
        if spec.kwarg:
            rows.append(self._row(f"**{spec.kwarg.arg}", spec.kwarg, None))
        return rows

    def _fields(self, node: ast.ClassDef) -> list[Parameter]:
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
        return [self._row(field.target.id, field, field.value) for field in fields if not field.target.id.startswith("_")]

    def _row(self, name: str, node: ast.arg | ast.AnnAssign, default: ast.expr | None) -> Parameter:
        annotation = _annotation(node.annotation)
        last_line = max(node.end_lineno, default.end_lineno if default else 0)
        return Parameter(name, annotation, _default(default), self.comments.get(last_line, ""))


def _annotation(node: ast.expr | None) -> str:
    "As the source writes it, less the quotes of a forward reference."
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node) if node else ""


def _default(node: ast.expr | None) -> str:
    "The default as the source writes it; of pydantic's `Field(...)` and dataclasses' `field(...)` only what they give when nothing is said."
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Field", "field"):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if node.args:
            given["default"] = ast.unparse(node.args[0])
        factory = given.get("default_factory")
        return given.get("default", f"{factory}()" if factory else "").replace("...", "")
    return ast.unparse(node) if node else ""


def _docstring(node: ast.AST) -> str:
    return _as_text(inspect.cleandoc(ast.get_docstring(node) or ""))


def _as_text(text: str) -> str:
    "What Markdown would swallow as a tag or a formula, e.g. the `<label>` of a regular expression or two prices in dollars, kept as text; code stays."
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(part if i % 2 else part.replace("<", "\\<").replace("$", "\\$") for i, part in enumerate(parts))


def _signature(parameters: list[Parameter]) -> str:
    parts = []
    for parameter in parameters:
        equals = " = " if parameter.type else "="
        default = equals + parameter.default if parameter.default else ""
        parts.append(parameter.name + (f": {parameter.type}" if parameter.type else "") + default)
    return ", ".join(parts)


def _table(parameters: list[Parameter], result: Parameter | None = None) -> str:
    "A table where at least one row has something to say that the signature does not."
    rows = [parameter for parameter in parameters if parameter.name not in ("/", "*")] + ([result] if result else [])
    if not any(row.details for row in rows):
        return ""
    with_defaults = any(row.default for row in rows)
    lines = [
        "| name | type |" + (" default |" if with_defaults else "") + " meaning |",
        "|---|---|" + ("---|" if with_defaults else "") + "---|",
    ]
    for row in rows:
        name = row.name if row is result else _code(row.name)
        details = re.sub(r"(?<!\\)\|", r"\\|", _as_text(row.details))
        lines.append(f"| {name} | {_code(row.type)} |" + (f" {_code(row.default)} |" if with_defaults else "") + f" {details} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _directive(kind: str, head: str, body: list[str], options: list[str] | None = None) -> str:
    "A colon fence, longer than any that stands in it."
    content = "\n\n".join(part for part in body if part)
    fence = ":" * max([3, *(len(inner) + 1 for inner in re.findall(r"^:{3,}", content, re.MULTILINE))])
    return "\n".join([f"{fence}{{py:{kind}}} {head}", *(options or []), "", content, fence])
