"""Executed notebooks to HTML pages, readable offline: `jupyter nbconvert --to helpers.render.Page`.

nbconvert makes Markdown by the template in helpers/page, and pandoc makes of it one HTML file, with
figures embedded, mathematics as MathML and the citations resolved from notebooks/references.bib.
A figure's or table's cell begins with its options, in YAML:

    #| label: fig:curvas            the anchor
    #| num: "2a"                    its number in the report; else counted within the notebook
    #| fig-cap: What it shows.      the caption (tbl-cap: for a table)
    #| fig-alt: What one sees.      for those who cannot see it; a figure must have it
"""
import re
import tempfile
from pathlib import Path

import pypandoc
import yaml
from nbconvert.exporters import Exporter, MarkdownExporter
from nbconvert.preprocessors import Preprocessor

from helpers import store

WORDS = {"fig": "figura", "tbl": "tabla", "eq": "ecuación", "sec": "sección"}
REFERENCE = re.compile(r"@((fig|tbl|eq|sec):[\w-]+)")
BIBLIOGRAPHY = store.ROOT / "notebooks" / "references.bib"
PAGE = Path(__file__).parent / "page"
STYLE = PAGE / "numeric.csl"  # of the citations


def split_options(source):
    """Return (options, code): the YAML of a cell's leading lines "#| …", and the rest."""
    lines = source.split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    options = yaml.safe_load("\n".join(line[2:] for line in lines[:count])) or {}
    return options, "\n".join(lines[count:]).strip("\n")


def described(options):
    """Return a cell's options with its alternative text on one line; raise ValueError if a figure has none."""
    if "fig-cap" in options and not options.get("fig-alt"):
        raise ValueError(f"the figure {options.get('label', options['fig-cap'])!r} has no fig-alt")
    return options | {"alt": " ".join(str(options.get("fig-alt", "")).split()).replace('"', "'")}


def caption(kind, number, words):
    """Return a caption that begins with what it is and its number."""
    return f"**{WORDS[kind].capitalize()}\u00a0{number}.** {' '.join(words.split())}"


def resolve(cells, numbers):
    """Put a link of word and number where a text, of the cells or of their outputs, refers to a label: @fig:x.

    numbers: of each label; None where its cell showed nothing. Raises ValueError for a label that is not there.
    """
    def link(found):
        if found[1] not in numbers:
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
            for kind in counts:
                if f"{kind}-cap" not in options:
                    continue
                if "num" not in options:
                    counts[kind] += 1
                number = options.get("num", f"{chapter}.{counts[kind]}")
                options["caption"] = caption(kind, number, options[f"{kind}-cap"])
                numbers[options.get("label")] = number if cell.outputs else None
            cell.metadata["options"] = described(options)
        resolve(nb.cells, numbers)
        return nb, resources


class ArticleMarkdown(MarkdownExporter):
    """Cells whose options are told already (article.py) to pandoc's Markdown."""
    template_name = "page"
    extra_template_basedirs = [str(PAGE.parent)]

    def _template_extension_default(self):
        return ".md.j2"


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
        title = next((line[2:] for cell in nb.cells for line in cell.source.split("\n")
                      if line.startswith("# ")), "Cuaderno")
        text, resources = PageMarkdown(parent=self).from_notebook_node(nb, resources, **kwargs)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in resources.pop("outputs", {}).items():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).write_bytes(content)
            html = pypandoc.convert_text(text, "html5", "markdown", extra_args=[
                "--standalone", "--embed-resources", "--mathml", "--toc", "--toc-depth=2",
                "--wrap=none", "--columns=10000", "--section-divs", f"--resource-path={folder}",
                f"--css={PAGE / 'page.css'}", "--citeproc", f"--bibliography={BIBLIOGRAPHY}", f"--csl={STYLE}",
                "--metadata=lang:es", f"--metadata=pagetitle:{title}", "--metadata=link-citations",
                "--metadata=reference-section-title:Referencias", "--fail-if-warnings"])
        resources["output_extension"] = ".html"
        return html, resources


def _chapter(nb):
    """Return the number in the notebook's title, "# 2. Entrenamiento": "2"."""
    match = re.search(r"^# (\d+)\.", nb.cells[0].source if nb.cells else "", re.M)
    return match[1] if match else ""
