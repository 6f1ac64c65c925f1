"""An executed notebook as a page that reads offline, in HTML and PDF: `python -m helpers.report.page FILE.ipynb`.

nbconvert makes Markdown by the template in helpers/report/templates, and pandoc makes of it one HTML file, with
figures embedded, mathematics as MathML and the citations resolved from notebooks/references.bib; and
through Typst the PDF. `jupyter nbconvert --to helpers.report.page.Page` makes the HTML too.
A figure's or table's cell may begin with its options, in YAML:

    #| label: fig:curvas            the anchor
    #| num: "2a"                    its number in the report; else counted within the notebook
    #| fig-cap: What it shows.      the caption (tbl-cap: for a table)
    #| fig-alt: What one sees.      for those who cannot see it; in the report a figure must have it
"""
import itertools
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pypandoc
import typst
import yaml
from nbconvert.exporters import Exporter, MarkdownExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import Preprocessor

from helpers.artifacts import store

WORDS = {"fig": "figura", "tbl": "tabla", "eq": "ecuación", "sec": "sección"}
REFERENCE = re.compile(r"@((fig|tbl|eq|sec):[\w-]+)")
FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`]*$)|~{3,})", re.M)
# What a terminal does not show, its links included; colours go afterwards.
CONTROL = re.compile(r"\x1b\].*?(?:\x07|\x1b\\)|[^\x08-\x0a\x0d\x1b\x20-\x7e\x80-\U0010ffff]")
BIBLIOGRAPHY = store.ROOT / "notebooks" / "references.bib"
PAGE = Path(__file__).parent / "templates"
STYLE = PAGE / "numeric.csl"  # of the citations


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


def described(options):
    """Return a cell's options with its alternative text on one line; ValueError if a figure has none."""
    if "fig-cap" in options and not options.get("fig-alt"):
        raise ValueError(f"the figure {options.get('label', options['fig-cap'])!r} has no fig-alt")
    return options | {"alt": " ".join(str(options.get("fig-alt", "")).split()).replace('"', "'")}


def caption(kind, number, words):
    """Return a caption that begins with what it is and its number."""
    return f"**{WORDS[kind].capitalize()}\u00a0{number}.** {' '.join(str(words).split())}"


def executed(path):
    """Return the notebook at `path`; raise ValueError, with its name and the cell, unless all of it was run.

    A cell that failed is let pass where its tags say that it may: raises-exception; one that was not run
    too: skip-execution.
    """
    try:
        notebook = nbformat.read(path, 4)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} cannot be read as a notebook: {str(error)[:200]}") from error
    return ran(notebook, path)


def ran(notebook, name):
    """Return the notebook; as for `executed`."""
    for i, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        options, code = split_options(cell.source)
        which = f"cell {i} ({options.get('label') or code.partition(chr(10))[0]})"
        tags, told = cell.metadata.get("tags", ()), cell.metadata.get("papermill", {})
        unfinished = cell.execution_count is None or told.get("status") in ("pending", "running")
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags:
                raise ValueError(f"{name} has a cell that failed, {which}: {output.ename}: {output.evalue}")
        if unfinished and "skip-execution" not in tags:
            raise ValueError(f"{name} was not executed to its end: {which} was not run; execute it again")
    return notebook


def fenced(text, mark, plain=True):
    """Return text as a block of code of pandoc's, in a fence that no line of it can close.

    plain: as a terminal would leave it, without colours, and with what was written over what.
    """
    text = terminal(text) if plain else text
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence} {{{mark}}}\n{text.rstrip()}\n{fence}"


def closed(text):
    """Return Markdown with the fence closed that it leaves open, so that it does not take in what follows."""
    fence = None
    for line in text.split("\n"):
        found = FENCE.match(line)
        if fence is None:
            fence = found and found[1]
        elif re.fullmatch(rf" {{0,3}}{re.escape(fence)}{re.escape(fence[0])}*\s*", line):
            fence = None
    return f"{text}\n{fence}" if fence else text


def terminal(text):
    """Return printed text as it would stand in a terminal: no colours, progress bars at their last state."""
    lines = []
    for line in strip_ansi(CONTROL.sub("", text)).split("\n"):
        shown, at = [], 0
        for char in line:
            if char in "\r\b":
                at = 0 if char == "\r" else max(at - 1, 0)
            else:
                shown[at:at + 1] = char
                at += 1
        lines.append("".join(shown).rstrip())
    return "\n".join(lines)


def resolve(cells, numbers, strict=True):
    """Put a link of word and number where a text, of the cells or of their outputs, refers to a label: @fig:x.

    numbers: of each label; None where its cell showed nothing. Raises ValueError for a label that is not
    there; not strict: leaves it as it is.
    """
    def link(found):
        if found[1] not in numbers:
            if not strict:
                return found[0]
            raise ValueError(f"a text refers to {found[1]}, which is not there")
        value, word = numbers[found[1]], WORDS[found[2]]
        if found[2] == "sec" and value[0].isalpha():
            word = "apéndice"
        return f"[{word}\u00a0{value}](#{found[1]})" if value else f"{word} que aquí no se hizo"

    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = REFERENCE.sub(link, cell.source)
        for output in cell.get("outputs", ()):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = REFERENCE.sub(link, output.data["text/markdown"])


class CellOptions(Preprocessor):
    """Moves each code cell's options into its metadata, with its numbered caption."""

    def preprocess(self, nb, resources):
        counts, chapter, numbers = {"fig": 0, "tbl": 0}, _chapter(nb), {}
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            options, cell.source = split_options(cell.source)
            if not re.fullmatch(r"[\w:.-]+", str(options.get("label", "-"))):
                del options["label"]  # it cannot be an anchor
            for kind in counts:
                if f"{kind}-cap" not in options:
                    continue
                if "num" not in options:
                    counts[kind] += 1
                number = options.get("num", f"{chapter}{counts[kind]}")
                options["caption"] = caption(kind, number, options[f"{kind}-cap"])
                numbers[options.get("label")] = str(number) if cell.outputs else None
            cell.metadata["options"] = described({"fig-alt": options.get("fig-cap", "")} | options)
        resolve(nb.cells, numbers, strict=False)
        return nb, resources


class ArticleMarkdown(MarkdownExporter):
    """Cells whose options are told already (article.py) to pandoc's Markdown."""
    template_name = "page"
    extra_template_basedirs = [str(PAGE.parent)]

    def _template_extension_default(self):
        return ".md.j2"

    def default_filters(self):
        return itertools.chain(super().default_filters(), {"fenced": fenced, "closed": closed}.items())


class PageMarkdown(ArticleMarkdown):
    """An executed notebook to pandoc's Markdown."""

    def _init_preprocessors(self):
        super()._init_preprocessors()
        self._preprocessors.insert(0, CellOptions(parent=self, enabled=True))


class Page(Exporter):
    """An executed notebook to one HTML file."""
    output_mimetype = "text/html"
    file_extension = ".html"

    def from_notebook_node(self, nb, resources=None, **kwargs):
        resources = resources or {}
        told = resources.get("metadata", {})
        name, folder = told.get("name", "notebook"), told.get("path") or "."
        page = html(ran(nb, f"{name}.ipynb"), name, folder)
        return page, resources | {"output_extension": ".html"}


def html(notebook, name, folder):
    """Return an executed notebook as one HTML page. folder: where the pictures are that its text shows."""
    with tempfile.TemporaryDirectory() as scratch:
        text = markdown(PageMarkdown(), notebook, Path(scratch))
        return pandoc(text, "html5", header(scratch, "page.css"), *_notebook(scratch, name, folder),
                      "--toc", "--toc-depth=2", "--mathml", "--embed-resources", "--section-divs")


def pdf(notebook, name, folder):
    """Return an executed notebook as PDF; as for `html`."""
    with tempfile.TemporaryDirectory() as scratch:
        text = markdown(PageMarkdown(), notebook, Path(scratch))
        text = pandoc(text, "typst", *_notebook(scratch, name, folder), f"--template={PAGE / 'article.typ'}",
                      "--quiet")  # the HTML has told what it warns of
        return compiled(text, scratch)[0]


def _notebook(scratch, name, folder):
    return [f"--lua-filter={PAGE / 'notebook.lua'}", "--citeproc",
            f"--resource-path={scratch}{os.pathsep}{folder}", "--metadata=lang:es", f"--metadata=pagetitle:{name}",
            "--metadata=reference-section-title:Referencias"]


def markdown(exporter, notebook, folder):
    """Return a notebook as pandoc's Markdown, its pictures written to `folder`."""
    names = {"unique_key": "output", "output_files_dir": "files"}
    text, resources = exporter.from_notebook_node(notebook, names)
    for name, content in resources["outputs"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return text


def header(folder, *styles):
    """Return pandoc's option for a page's head: its policy, and the style sheets of these names."""
    path = Path(folder) / "header.html"
    style = "".join((PAGE / name).read_text("utf8") for name in styles)
    path.write_text(f"{(PAGE / 'policy.html').read_text('utf8')}<style>\n{style}</style>\n", "utf8")
    return f"--include-in-header={path}"


def pandoc(text, to, *arguments):
    """Return Markdown in another format, by pandoc in its sandbox: it reads and fetches nothing unasked."""
    return pypandoc.convert_text(text, to, "markdown-yaml_metadata_block-pandoc_title_block", extra_args=[
        "--sandbox", "--standalone", f"--lua-filter={PAGE / 'page.lua'}", *arguments,
        f"--bibliography={BIBLIOGRAPHY}", f"--csl={STYLE}", "--wrap=none", "--columns=10000",
        "--metadata=link-citations", "--metadata=document-css=false"])  # the pages have their own


def compiled(text, folder, standards=()):
    """Return Typst's source as (PDF, warnings). folder: of its pictures, outside which it reads nothing."""
    path = Path(folder) / "page.typ"
    path.write_text(text, "utf8")
    now = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return typst.compile_with_warnings(str(path), root=str(folder), ignore_system_fonts=True,
                                       pdf_standards=list(standards), timestamp=now)


def write(path):
    """Write the page of the executed notebook at `path` beside it, in HTML and PDF; return their paths.

    Raises ValueError for what is not a notebook executed to its end.
    """
    path = Path(path)
    if path.suffix != ".ipynb":
        raise ValueError(f"a page is made of an executed notebook, FILE.ipynb, got {str(path)!r}")
    notebook, folder, done = executed(path), path.resolve().parent, []
    for suffix, make in ((".html", html), (".pdf", pdf)):
        try:
            content = make(notebook, path.stem, folder)
        except RuntimeError as error:  # of pandoc or Typst
            if suffix == ".html":
                raise ValueError(f"{path}: {error}") from error
            print(f"There is no PDF of {path}: {error}", file=sys.stderr)
            continue
        with store.atomic(path.with_suffix(suffix)) as partial:
            partial.write_bytes(content.encode("utf8") if suffix == ".html" else content)
        done.append(path.with_suffix(suffix))
    return done


def _chapter(nb):
    """Return the number in the notebook's title, "# 2. Entrenamiento", with its point: "2."."""
    match = re.search(r"^# (\d+\.)", nb.cells[0].source if nb.cells else "", re.M)
    return match[1] if match else ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m helpers.report.page FILE.ipynb")
    try:
        print("The page: " + " and ".join(map(str, write(sys.argv[1]))))
    except (ValueError, OSError) as error:
        sys.exit(f"The page was not written: {error}")
