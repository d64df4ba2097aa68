"What is measured of a student beside its accuracy, and the files that its predictions are kept in."

import csv
import io

import pandas as pd
import pytest

from zero_shot_distill.core.files import write_csv

# --- tables for a spreadsheet

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    '=HYPERLINK("http://x","a, b")',
    "＝1+1",
    "- 3 pens",
]
PLAIN = ["-3", "+3.5", "-3,000", "-3 %", "-1e-5", "-.5", "a cat = an animal", "not -3", "a\r=1", -3, 2.5]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_no_cell_of_a_csv_file_is_a_formula(delimiter):
    file = io.StringIO(newline="")
    write_csv([{"=name": cell} for cell in FORMULAS + PLAIN], file, ["=name"], delimiter)
    read = [row[0] for row in csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter)]
    assert read == ["'=name", *("'" + cell for cell in FORMULAS), *map(str, PLAIN)]
    table = pd.read_csv(io.StringIO(file.getvalue(), newline=""), sep=delimiter)
    assert table["'=name"].tolist() == read[1:]


def test_numbers_of_a_csv_file_are_numbers():
    file = io.StringIO(newline="")
    write_csv([{"id": "a", "label": "-3"}, {"id": "b", "label": -3.5}, {"id": "c"}], file, ["id", "label"])
    assert pd.read_csv(io.StringIO(file.getvalue()))["label"].sum() == -6.5
