"""An executed notebook as a page, HTML and PDF, that reads offline: `python -m helpers.report.page FILE`.

nbconvert makes Markdown by the template in helpers/report/templates, and pandoc makes of it one HTML file,
with figures embedded, mathematics as MathML and the citations resolved from notebooks/references.bib; and
through Typst the PDF. `jupyter nbconvert --to helpers.report.page.Page` makes the HTML too. A figure's or
table's cell may begin with its options, in YAML:

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
from nbconvert.exporters import Exporter, MarkdownExporter
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import Preprocessor

from helpers.artifacts import files, paths
from helpers.report import labels
from helpers.report.labels import EQUATION, REFERENCE, WORDS, caption, split_options

FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`]*$)|~{3,})", re.M)
# What a terminal does not show, its links included; colours go afterwards.
CONTROL = re.compile(r"\x1b\].*?(?:\x07|\x1b\\)|[^\x08-\x0a\x0d\x1b\x20-\x7e\x80-\U0010ffff]")
BIBLIOGRAPHY = paths.ROOT / "notebooks" / "references.bib"
PAGE = Path(__file__).parent / "templates"
STYLE = PAGE / "numeric.csl"  # of the citations


def described(options):
    """Return a cell's options with its alternative text on one line; ValueError if a figure has none."""
    if "fig-cap" in options and not options.get("fig-alt"):
        raise ValueError(f"the figure {options.get('label', options['fig-cap'])!r} has no fig-alt")
    return options | {"alt": " ".join(str(options.get("fig-alt", "")).split()).replace('"', "'")}


def executed(path):
    """Return the notebook at `path`; raise ValueError, with its name and the cell, unless all of it was run.

    A cell that failed is let pass where its tags say that it may: raises-exception; one that was not run
    too: skip-execution.
    """
    try:
        notebook = nbformat.read(path, 4)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} cannot be read as a notebook: {str(error)[:200]}") from error
    return plain(ran(notebook, path))


def plain(notebook):
    """Return the notebook with its prose as text, references unresolved, and without a kernel's captions.

    A cell of %%prosa is Markdown then, as it was written with its numbers, and its source is gone.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not output.get("metadata", {}).get("caption")]
        for output in cell.outputs:
            if "prosa" in output.get("metadata", {}):
                output.data["text/markdown"] = output.metadata.prosa.markdown
    notebook.cells = [_text_of(cell) for cell in notebook.cells]
    return notebook


def _text_of(cell):
    """Return a cell of %%prosa that said something as a cell of Markdown, any other as it is."""
    if cell.cell_type != "code" or not labels.is_prose(cell) or any(out.output_type == "error"
                                                                    for out in cell.outputs):
        return cell
    told = [output.data["text/markdown"] for output in cell.outputs if "prosa" in output.get("metadata", {})]
    text = {"cell_type": "markdown", "metadata": cell.metadata, "source": "\n\n".join(told)}
    return nbformat.from_dict({"id": cell.get("id", "prosa"), **text}) if told else cell


def ran(notebook, name):
    """Return the notebook; raise as for `executed`."""
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
    """Put a link of word and number where a text, of cells, captions or outputs, refers to a label: @fig:x.

    numbers: of each label; None where its cell showed nothing. Raises ValueError for a label that is not
    there; not strict: says its number in another notebook, without a link, or leaves it as it is.
    """
    def link(found):
        if found[1] not in numbers:
            if not strict:
                return labels.known().get(found[1], found[0])
            raise ValueError(f"a text refers to {found[1]}, which is not there")
        if not (value := numbers[found[1]]):
            return f"{WORDS[found[2]]} que aquí no se hizo"
        return f"[{labels.words(found[1], value)}](#{found[1]})"

    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = REFERENCE.sub(link, cell.source)
        if "caption" in (options := cell.metadata.get("options", {})):
            options["caption"] = REFERENCE.sub(link, options["caption"])
        for output in cell.get("outputs", ()):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = REFERENCE.sub(link, output.data["text/markdown"])


def equation(found, numbers):
    """Return an EQUATION that was found with its number beside it; as it is where it has no label."""
    if not found["label"]:
        return found[0]
    return f"::: {{.equation #{found['label']}}}\n$${found['tex']}$$\n\n{numbers[found['label']]}\n:::\n"


class CellOptions(Preprocessor):
    """Moves each code cell's options into its metadata, with its numbered caption."""

    def preprocess(self, nb, resources):
        numbers, captions = labels.equations(nb.cells), {}
        for cell, kind, options, number in labels.counted(nb.cells):
            captions[id(cell)] = caption(kind, number, options[f"{kind}-cap"])
            numbers[options.get("label")] = number if cell.outputs else None
        for cell in nb.cells:
            if cell.cell_type == "code":
                options, cell.source = split_options(cell.source)
                if not re.fullmatch(r"[\w:.-]+", str(options.get("label", "-"))):
                    del options["label"]  # it cannot be an anchor
                told = {"caption": captions[id(cell)]} if id(cell) in captions else {}
                cell.metadata["options"] = described({"fig-alt": options.get("fig-cap", "")} | options | told)
            elif cell.cell_type == "markdown":
                cell.source = EQUATION.sub(lambda found: equation(found, numbers), cell.source)
        resolve(nb.cells, numbers, strict=False)
        return nb, resources


class ArticleMarkdown(MarkdownExporter):
    """Cells whose options are told already (article.py) to pandoc's Markdown."""
    template_name = "templates"
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
        page = html(plain(ran(nb, f"{name}.ipynb")), name, folder)
        return page, resources | {"output_extension": ".html"}


def html(notebook, name, folder):
    """Return an executed notebook as one HTML page. folder: where the pictures are that its text shows."""
    with tempfile.TemporaryDirectory() as scratch:
        text = as_markdown(PageMarkdown(), notebook, Path(scratch))
        return pandoc(text, "html5", header(scratch, "page.css"), *_notebook(scratch, name, folder),
                      "--toc", "--toc-depth=2", "--mathml", "--embed-resources", "--section-divs")


def pdf(notebook, name, folder):
    """Return an executed notebook as PDF; as for `html`."""
    with tempfile.TemporaryDirectory() as scratch:
        text = as_markdown(PageMarkdown(), notebook, Path(scratch))
        text = pandoc(text, "typst", *_notebook(scratch, name, folder), f"--template={PAGE / 'article.typ'}",
                      "--quiet")  # the HTML has told what it warns of
        return compiled(text, scratch)[0]


def _notebook(scratch, name, folder):
    return [f"--lua-filter={PAGE / 'notebook.lua'}", "--citeproc",
            f"--resource-path={scratch}{os.pathsep}{folder}", "--metadata=lang:es",
            f"--metadata=pagetitle:{name}",
            "--metadata=reference-section-title:Referencias"]


def as_markdown(exporter, notebook, folder):
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


def write_page(path):
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
        with files.atomic(path.with_suffix(suffix)) as partial:
            partial.write_bytes(content.encode("utf8") if suffix == ".html" else content)
        done.append(path.with_suffix(suffix))
    return done


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m helpers.report.page FILE.ipynb")
    try:
        print("The page: " + " and ".join(map(str, write_page(sys.argv[1]))))
    except (ValueError, OSError) as error:
        sys.exit(f"The page was not written: {error}")
