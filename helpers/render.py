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

BIBLIOGRAPHY = store.ROOT / "notebooks" / "references.bib"
PAGE = Path(__file__).parent / "page"


def split_options(source):
    """Return (options, code): the YAML of a cell's leading lines "#| …", and the rest."""
    lines = source.split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    options = yaml.safe_load("\n".join(line[2:] for line in lines[:count])) or {}
    return options, "\n".join(lines[count:]).strip("\n")


class CellOptions(Preprocessor):
    """Moves each code cell's options into its metadata, with its numbered caption."""

    def preprocess(self, nb, resources):
        counts, chapter = {"fig": 0, "tbl": 0}, _chapter(nb)
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            options, cell.source = split_options(cell.source)
            for kind, word in (("fig", "Figura"), ("tbl", "Tabla")):
                caption = options.get(f"{kind}-cap")
                if caption is None:
                    continue
                if kind == "fig" and not options.get("fig-alt"):
                    raise ValueError(f"the figure {options.get('label', caption)!r} has no fig-alt")
                if "num" not in options:
                    counts[kind] += 1
                number = options.get("num", f"{chapter}.{counts[kind]}")
                options["caption"] = f"**{word} {number}.** {' '.join(caption.split())}"
            options["alt"] = " ".join(str(options.get("fig-alt", "")).split()).replace('"', "'")
            cell.metadata["options"] = options
        return nb, resources


class PageMarkdown(MarkdownExporter):
    """An executed notebook to pandoc's Markdown."""
    template_name = "page"
    extra_template_basedirs = [str(PAGE.parent)]

    def _template_extension_default(self):
        return ".md.j2"

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
                f"--css={PAGE / 'page.css'}", "--citeproc", f"--bibliography={BIBLIOGRAPHY}",
                "--metadata=lang:es", f"--metadata=pagetitle:{title}", "--metadata=link-citations",
                "--metadata=reference-section-title:Referencias", "--fail-if-warnings"])
        resources["output_extension"] = ".html"
        return html, resources


def _chapter(nb):
    """Return the number in the notebook's title, "# 2. Entrenamiento": "2"."""
    match = re.search(r"^# (\d+)\.", nb.cells[0].source if nb.cells else "", re.M)
    return match[1] if match else ""
