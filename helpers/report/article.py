"""The report as one article: `python -m helpers.report.article EXECUTED OUTPUT.html`, or OUTPUT.pdf.

notebooks/informe.md is the article: its front page (in YAML), its text, and lines that bring in what the
notebooks computed:

    {{05_transferencia.fig:bode}}   the cell of this label
    {{03_ataques.ataques}}          the cells of this tag, in their order: text, figures, tables, sentences
    {{*.claims | Caption}}          the tables of this tag in all notebooks, as one
    {{*.conclusion}}                the cells of this tag in all notebooks (of "abstract", in the front page)
    {{informe.times | Caption}}     a table of appendix.py

Code is never shown. Figures and tables have the number that their cell gives them, which is the draft's, or
else that of the section and a count; display equations are counted. @fig:x, @tbl:x, @eq:x (of an equation
with a label, $$ … $$ {#eq:x}) and @sec:x refer to them. pandoc makes the HTML, and through Typst the PDF.
"""
import re
import sys
import tempfile
from pathlib import Path

import nbformat

from helpers.artifacts import files, paths
from helpers.report import appendix, labels, page
from helpers.report.labels import EQUATION, HEADING

SOURCE = paths.ROOT / "notebooks" / "informe.md"
INCLUDE = re.compile(r"^\{\{([\w*-]+)\.([\w:-]+)(?: \| ([^}]+))?\}\}$", re.M)
ABSTRACT = re.compile(r"^( *)\{\{\*\.abstract\}\}$", re.M)


def build(executed, path):
    """Write the article of the executed notebooks in a folder to `path`, HTML or PDF by its suffix.

    Raises ValueError for what is missing: a notebook, a label, a reference, a citation, an alternative text.
    """
    makers = {".html": _html, ".pdf": _pdf}
    if Path(path).suffix not in makers:
        raise ValueError(f"the article is written as {' or '.join(makers)}, got {path}")
    front, notebook = assemble(SOURCE.read_text("utf8"), Path(executed))
    with tempfile.TemporaryDirectory() as folder:
        text = page.as_markdown(page.ArticleMarkdown(), notebook, Path(folder))
        (Path(folder) / "front.yaml").write_text(f"{front}\n", "utf8")
        made = makers[Path(path).suffix](text, Path(folder))
    with files.atomic(path) as partial:
        partial.write_bytes(made)


def assemble(source, executed):
    """Return (front, notebook): the article's metadata in YAML, and all that it shows, numbered."""
    front, _, body = source.removeprefix("---\n").partition("\n---\n")
    cells = []
    text, *rest = INCLUDE.split(body)
    cells.append(nbformat.v4.new_markdown_cell(text))
    for name, mark, words, text in zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True):
        cells += (_computed(mark, words, executed) if name == "informe"
                  else _everywhere(executed, mark, words)
                  if name == "*" else included(executed / f"{name}.ipynb", mark))
        cells.append(nbformat.v4.new_markdown_cell(text))
    for i, cell in enumerate(cells):
        cell["id"] = f"c{i}"  # those of different notebooks may be the same
    notebook = nbformat.v4.new_notebook(cells=cells)
    number_parts(notebook)
    return ABSTRACT.sub(lambda found: _sentences(_everywhere(executed, "abstract"), found[1]),
                        front), notebook


def included(path, mark):
    """Return the cells of an executed notebook with this label or tag, their options told, without code.

    Raises ValueError where there are none, or where the notebook was not executed to its end.
    """
    if not path.is_file():
        raise ValueError(f"the article needs {path}, which has not been executed")
    chosen = []
    for cell in page.executed(path).cells:
        options, _ = page.split_options(cell.source) if cell.cell_type == "code" else ({}, "")
        if mark not in (options.get("label"), *cell.metadata.get("tags", ())):
            continue
        if cell.cell_type == "code":
            cell.source, cell.metadata["options"] = "", page.described(options)
        else:  # its sections become parts of the article's
            cell.source = HEADING.sub(
                lambda found: f"#{found['marks']} {re.sub(r'^[0-9.]+ ', '', found['title'])}", cell.source)
        chosen.append(cell)
    if not chosen:
        raise ValueError(f"{path} has no cell of the label or tag {mark!r}")
    return chosen


def _everywhere(executed, mark, words=None):
    """Return the cells of a tag in all notebooks; with `words`, a caption, their tables in one cell."""
    cells = []
    for path in appendix.notebooks(executed):
        if any(mark in cell.metadata.get("tags", ()) for cell in nbformat.read(path, 4).cells):
            cells += included(path, mark)
    if words is None:
        return cells
    tables = [said.splitlines() for said in _said(cells)]
    if len({tuple(lines[:1]) for lines in tables}) != 1:
        raise ValueError(f"the tables of the tag {mark} do not have one and the same header")
    rows = list(dict.fromkeys(line for lines in tables for line in lines[2:]))
    return _table(mark, words, "\n".join([*tables[0][:2], *rows]))


def _computed(name, words, executed):
    if name not in appendix.TABLES:
        raise ValueError(f"the appendix has {', '.join(appendix.TABLES)}, not {name!r}")
    if words is None:
        return [nbformat.v4.new_markdown_cell(appendix.TABLES[name](executed))]
    return _table(name, words, appendix.TABLES[name](executed))


def _table(name, words, markdown):
    output = nbformat.v4.new_output("display_data", data={"text/markdown": markdown})
    return [nbformat.v4.new_code_cell(outputs=[output],
                                      metadata={"options": {"label": f"tbl:{name}", "tbl-cap": words}})]


def number_parts(notebook):
    """Number the sections, equations, figures and tables of a notebook, and resolve references to them."""
    numbers, counts, section = {}, {"fig": 0, "tbl": 0, "eq": 0}, [0, 0, 0, 0]

    def label(name, value):
        if name in numbers:
            raise ValueError(f"the label {name} is there twice")
        numbers[name] = value

    def heading(found):
        attributes = found["attributes"] or ""
        if ".unnumbered" in attributes:
            return found[0]
        if found["marks"] == "#":
            counts.update(fig=0, tbl=0)
        value = labels.advance(section, found["marks"], attributes)
        for name in re.findall(r"#(sec:[\w-]+)", attributes):
            label(name, value)
        return f"{found['marks']} [{value}]{{.header-section-number}} {found['title']}{attributes}"

    def equation(found):
        counts["eq"] += 1
        name = found["label"] or f"eq:{counts['eq']}"
        label(name, f"({counts['eq']})")
        return f"::: {{.equation #{name}}}\n$${found['tex']}$$\n\n({counts['eq']})\n:::\n"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = EQUATION.sub(equation, HEADING.sub(heading, cell.source))
            continue
        options = cell.metadata["options"]
        for kind in ("fig", "tbl"):
            if f"{kind}-cap" in options and not cell.outputs:
                label(options["label"], None)
            elif f"{kind}-cap" in options:
                if "num" not in options:
                    counts[kind] += 1
                value = str(options.get("num", f"{section[0]}.{counts[kind]}"))
                label(options["label"], value)
                options["caption"] = page.caption(kind, value, options[f"{kind}-cap"])
    page.resolve(notebook.cells, numbers)


def _sentences(cells, indent):
    """Return what cells say, as lines of a YAML block."""
    return "\n".join(indent + line for line in "\n\n".join(_said(cells)).splitlines())


def _said(cells):
    """Return what cells say, text and the Markdown of outputs, and not what a library printed."""
    said = []
    for cell in cells:
        shown = [output.get("data", {}) for output in cell.get("outputs", ())]
        said += [cell.source] if cell.cell_type == "markdown" else [
            data["text/markdown"] for data in shown if "text/markdown" in data]
    return said


def _arguments(folder, *more):
    return ["--citeproc", f"--lua-filter={page.PAGE / 'article.lua'}",
            f"--metadata-file={folder / 'front.yaml'}", f"--resource-path={folder}", "--fail-if-warnings",
            *more]


def _html(text, folder):
    return page.pandoc(text, "html5", *_arguments(
        folder, page.header(folder, "page.css", "article.css"), "--toc", "--toc-depth=2", "--mathml",
        "--embed-resources", "--section-divs")).encode("utf8")


def _pdf(text, folder):
    text = page.pandoc(text, "typst", *_arguments(folder, f"--template={page.PAGE / 'article.typ'}"))
    pdf, warnings = page.compiled(text, folder, ["ua-1"])
    if warnings:
        raise ValueError("Typst warns: " + "; ".join(map(str, warnings)))
    return pdf


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m helpers.report.article EXECUTED OUTPUT.html|OUTPUT.pdf")
    try:
        build(*sys.argv[1:])
    except (ValueError, RuntimeError, OSError) as error:  # of pandoc or Typst, or of a full disk
        sys.exit(f"The report was not written: {error}")
