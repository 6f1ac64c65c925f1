import re
from html.parser import HTMLParser

import pypandoc
import pytest

from helpers.report import text


class Cells(HTMLParser):
    """The rows of the tables of a page, as the text of their cells."""

    def __init__(self, page):
        super().__init__()
        self.rows, self._inside = [], None
        self.feed(re.sub("<annotation.*?</annotation>", "", page))

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def read(markdown):
    return Cells(pypandoc.convert_text(markdown, "html5", "markdown",
                                       extra_args=["--mathml", "--columns=10000"])).rows


# What a cell is given, and what it shows.
SHOWN = {
    "PGD | L2": "PGD | L2", "a\\|b": "a|b", "a\\\\|b": "a\\|b", "a\\": "a\\", "||": "||", "": "", " a ": "a",
    "$|x|$ | y": "|x| | y", "$$|a|$$ $": "|a| $", "$a\\$|b$": "a$|b", "US$5": "US$5", "6$ x": "6$ x",
    "$5 and $6": "$5 and $6",
    "`a|b`": "a|b", "``a ` | b``": "a ` | b", "`$` | `": "$ | `", "a ` b": "a ` b", "``": "``", "```": "```",
    "a\nb\r\n c\u2028d\x0be": "a b c d e", "<b": "<b", "c>": "c>", "x<!--": "x<!–", "-->": "–>",
    "*a | b*": "a | b"}


def test_no_cell_of_a_table_takes_another_s():
    pairs = [(one, other) for one in SHOWN for other in SHOWN]
    rows = read(text.markdown([[*pair, 17] for pair in pairs], ["a|b", "c", "n"]))
    assert rows[0] == ["a|b", "c", "n"] and len(rows) == len(pairs) + 1
    for row, (one, other) in zip(rows[1:], pairs, strict=True):
        assert row == [SHOWN[one], SHOWN[other], "17"]


def test_a_row_is_as_long_as_its_header():
    for row in (["a", 1, 2], ["a"]):
        with pytest.raises(ValueError, match=f"a row of {len(row)} values under a header of 2: "):
            text.markdown([["b", 1], row], ["x", "n"])


def test_spanish_numbers():
    assert text.number(1234) == "1,234"
    assert text.number(60000) == "60,000"
    assert text.number(1234567.891, 1) == "1,234,567.9"
    assert text.number(-0.5) == "−0.500"
    assert text.number(-1e-9, 3) == "0.000" and text.number(-0.0) == "0"
    assert text.percent(0.9125) == "91.25\u00a0%"
    assert text.with_interval(0.9, 0.85, 0.95, 1) == "90.0\u00a0% [85.0; 95.0]"
    assert text.bracketed(90.25, 85, 95, decimals=1) == "90.2 [85.0;\u00a095.0]"
    assert text.bracketed(-0.5, -1.25, 1.5) == "−0.500 [−1.250;\u00a01.500]"


def test_what_is_no_number_is_a_dash():
    nan, inf = float("nan"), float("inf")
    assert [text.number(v) for v in (nan, inf, -inf)] == ["–", "∞", "−∞"]
    assert text.bracketed(nan, nan, nan) == text.with_interval(nan, 0, 1) == "–"
    assert text.bracketed(1.5, nan, nan, decimals=1) == "1.5"
    assert text.bracketed(1.5, -inf, 2, decimals=1) == "1.5 [−∞;\u00a02.0]"
