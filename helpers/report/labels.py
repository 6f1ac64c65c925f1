"""What is numbered, and how: the options of a cell, captions, labels and the words that refer to them.

A label is fig:x or tbl:x (a cell's option), eq:x ($$ … $$ {#eq:x}) or sec:x (a heading of
notebooks/informe.md). In a notebook a figure or table has the number that its cell gives it, or else the
chapter's and a count.
"""
import os
import re
from functools import lru_cache
from pathlib import Path

import nbformat
import yaml

from helpers.artifacts import paths

NOTEBOOKS = paths.ROOT / "notebooks"
ARTICLE = NOTEBOOKS / "informe.md"
WORDS = {"fig": "figura", "tbl": "tabla", "eq": "ecuación", "sec": "sección"}
REFERENCE = re.compile(r"@((fig|tbl|eq|sec):[\w-]+)")
EQUATION = re.compile(r"^\$\$(?P<tex>(?:(?!\$\$).)+)\$\$(?: \{#(?P<label>eq:[\w-]+)\})?$", re.M | re.S)
HEADING = re.compile(r"^(?P<marks>#{1,4}) (?P<title>[^\n]*?)(?P<attributes> \{[^}\n]*\})?$", re.M)


def split_options(source):
    """Return (options, code): the YAML of a cell's first lines "#| …", {} where it is none, and the rest."""
    lines = source.split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    try:
        options = yaml.safe_load("\n".join(line[2:] for line in lines[:count])) or {}
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        return {}, source
    return options, "\n".join(lines[count:]).strip("\n")


def caption(kind, number, words):
    """Return a caption that begins with what it is and its number; without one, where `number` is None."""
    what = WORDS[kind].capitalize() + ("" if number is None else f"\u00a0{number}")
    return f"**{what}.** {' '.join(str(words).split())}"


def counted(cells):
    """Yield (cell, kind, options, number) of each figure and table of a notebook's cells, in their order."""
    chapter, counts = chapter_of(cells), {"fig": 0, "tbl": 0}
    for cell in cells:
        options = split_options(cell.source)[0] if cell.cell_type == "code" else {}
        for kind in counts:
            if f"{kind}-cap" in options:
                counts[kind] += "num" not in options
                yield cell, kind, options, str(options.get("num", f"{chapter}{counts[kind]}"))


def equations(cells):
    """Return the numbers of a notebook's equations that have a label: dict of the label to "(2.1)"."""
    chapter = chapter_of(cells)
    names = [found["label"] for cell in cells if is_prose(cell) for found in EQUATION.finditer(cell.source)]
    return {name: f"({chapter}{i})" for i, name in enumerate(filter(None, names), 1)}


def is_prose(cell):
    """Return whether a cell is text: Markdown, or prose with numbers (prose.py)."""
    return cell.cell_type == "markdown" or cell.cell_type == "code" and cell.source.startswith("%%prosa")


def chapter_of(cells):
    """Return the number in a notebook's title, "# 2. Redes", with its point: "2."; "" where it has none."""
    found = re.search(r"^# (\d+\.)", cells[0].source if cells else "", re.M)
    return found[1] if found else ""


def advance(section, marks, attributes):
    """Count a heading of the article in `section`, four numbers, in place; return its number, "2.1", "A.1".

    marks: "#" to "####"; attributes: in braces, or None. ".appendix" begins the letters.
    """
    level = len(marks) - 1
    if level:
        section[level] += 1
    elif ".appendix" in (attributes or ""):
        section[0] = "A" if isinstance(section[0], int) else chr(ord(section[0]) + 1)
    else:
        section[0] += 1
    section[level + 1:] = [0] * (3 - level)
    return ".".join(map(str, section[:level + 1]))


def words(name, number):
    """Return what a text says of a label: "figura 2.3", "apéndice A.1"."""
    kind = name.partition(":")[0]
    word = "apéndice" if kind == "sec" and number[0].isalpha() else WORDS[kind]
    return f"{word}\u00a0{number}"


def known(*more):
    """Return what a text says of each label there is: dict of the label to words, "figura 2.3".

    Labels of notebooks/*.ipynb, of the notebook that JupyterLab runs here, of those at the paths `more`, and
    the sections of the article. Read again when one of these files has changed.
    """
    session = os.environ.get("JPY_SESSION_NAME", "")
    own = [path for path in map(Path, (session, *more)) if path.suffix == ".ipynb" and path.is_file()]
    sources = [ARTICLE, *sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *own]
    return _known(tuple((path, path.stat().st_mtime_ns) for path in sources))


@lru_cache(maxsize=1)
def _known(files):
    (source, _), *notebooks = files
    of_article = sections(source.read_text("utf8"))
    found = {name: f"{words(name, number)} del informe" for name, number in of_article.items()}
    for path, _ in notebooks:
        found |= {name: words(name, number) for name, number in numbers(nbformat.read(path, 4).cells).items()}
    return found


def numbers(cells):
    """Return the numbers of a notebook's figures, tables and equations by their labels."""
    figures = {options["label"]: number for _, _, options, number in counted(cells) if "label" in options}
    return figures | equations(cells)


def sections(source):
    """Return the numbers of the article's sections by their labels; source: with its front page."""
    section, found = [0, 0, 0, 0], {}
    for heading in HEADING.finditer(source.partition("\n---\n")[2]):
        attributes = heading["attributes"] or ""
        if ".unnumbered" not in attributes:
            number = advance(section, heading["marks"], attributes)
            found |= dict.fromkeys(re.findall(r"#(sec:[\w-]+)", attributes), number)
    return found
