"""How many of the files of `tests/test_file_layouts.py` several readers understand without being told anything: the same cells, in all rows.

python tests/benchmarks/readers.py    # seconds; peers that are not installed (pip install duckdb polars clevercsv) are left out
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_file_layouts import JSON, TABLES, written

from zero_shot_distill.task.rows import read_rows

Reader = Callable[[Path], list[list[Any]]]


def by_pandas(**options: Any) -> Reader:
    import pandas

    return lambda path: pandas.read_csv(path, dtype=str, keep_default_na=False, **options).values.tolist()


def by_pyarrow(path: Path) -> list[list[Any]]:
    import pyarrow
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as file:
        convert = csv.ConvertOptions(column_types=dict.fromkeys(file.schema.names, pyarrow.string()))
    return [[*row.values()] for row in csv.read_csv(path, parse_options=parse, convert_options=convert).to_pylist()]


def by_duckdb(call: str) -> Reader:
    import duckdb

    return lambda path: duckdb.connect().execute(f"SELECT * FROM {call}", [str(path)]).fetchall()


def of_lines(path: Path) -> bool:
    return "json" not in path.suffixes and path.suffix.lower() in {".jsonl", ".ndjson"}


def of_names(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[row.get("text"), row.get("label")] for row in rows]


def peers() -> tuple[dict[str, Reader], dict[str, Reader]]:
    "Readers of tables, and of JSON."
    import pandas
    from pyarrow import json as arrow_json

    tables = {"pandas": by_pandas(), "pandas, sep=None": by_pandas(sep=None, engine="python"), "pyarrow": by_pyarrow}
    json = {"pandas": lambda path: of_names(pandas.read_json(path, lines=of_lines(path), dtype=False).to_dict("records"))}
    json["pyarrow"] = lambda path: of_names(arrow_json.read_json(path).to_pylist())
    if find_spec("duckdb"):
        tables["DuckDB"] = by_duckdb("read_csv(?, all_varchar=true, max_line_size=10000000)")
        json["DuckDB"] = by_duckdb("(SELECT text, label FROM read_json(?, maximum_object_size=100000000))")
    if find_spec("polars"):
        import polars

        tables["Polars"] = lambda path: polars.read_csv(path, infer_schema_length=0).rows()
        json["Polars"] = lambda path: of_names((polars.read_ndjson if of_lines(path) else polars.read_json)(path).to_dicts())
    if find_spec("clevercsv"):
        import clevercsv

        tables["CleverCSV"] = lambda path: [[*row.values()] for row in clevercsv.read_dicts(str(path))]
    return tables, json


def main() -> None:
    ours: Reader = lambda path: [[*row.values()] for _, row in read_rows(path)]  # noqa: E731
    tables, json = peers()
    print("| reader | understood | wrong cells, no error | refused |\n| --- | ---: | ---: | ---: |")
    for kind, readers, files in (("tables", tables, TABLES), ("JSON", json, JSON)):
        for name, reader in {**readers, "ours": ours}.items():
            found = {"right": [], "wrong": [], "refused": []}
            for file, (content, rows, *_) in files.items():
                with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
                    path = written(Path(folder), file, content)
                    try:
                        cells = [["" if cell is None else str(cell) for cell in row] for row in reader(path)]
                    except Exception:  # of any library
                        found["refused"].append(file)
                        continue
                found["right" if cells == [[*row.values()] for row in rows] else "wrong"].append(file)
            print(f"| {name}: {kind} | {len(found['right'])} of {len(files)} | {len(found['wrong'])} | {len(found['refused'])} |")


if __name__ == "__main__":
    argparse.ArgumentParser(description="How many files do several readers understand?").parse_args()
    main()
