"""Tables as plain text."""

import doctest

import pytest

from posebatch.core import text_table as module
from posebatch.core.text_table import text_table


def test_text_table_aligns_the_first_column_left_and_the_others_right():
    lines = text_table(["name", "n", "share"], [["a", "10", "0.5"], ["longer", "1", ""]]).splitlines()
    assert lines == [
        "name     n  share",
        "a       10    0.5",
        "longer   1",
    ]


def test_text_table_takes_an_alignment_for_each_column():
    assert text_table(["a", "b"], [["10", "left"], ["1", "l"]], "><").splitlines() == [
        " a  b",
        "10  left",
        " 1  l",
    ]


def test_text_table_of_no_rows_is_its_headings():
    assert text_table(["a", "b"], []) == "a  b"


@pytest.mark.parametrize(("rows", "alignment"), [([["1"]], ""), ([["1", "2", "3"]], ""), ([], "<")])
def test_text_table_refuses_another_number_of_columns(rows, alignment):
    with pytest.raises(ValueError, match="zip"):
        text_table(["a", "b"], rows, alignment)


def test_text_table_example_is_right():
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0
