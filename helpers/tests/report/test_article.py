"""The article is complete and sound: of notebooks with made-up outputs, and of what has been rendered."""
import re
from html.parser import HTMLParser

import nbformat
import pypdf
import pytest
import yaml

from helpers.artifacts import paths
from helpers.report import appendix, article, parameters, text
from helpers.report import page as report_page
from helpers.tests import chromium

NOTEBOOKS = sorted(parameters.NOTEBOOKS.glob("[0-9]*.ipynb"))
DRAFT = ("1a", "1b", "2a", "2b", "3a", "3b", "4", "5", "6a", "6b", "7a", "7b", "8a", "8b", "9", "10a", "10b",
         "11a", "11b",
         "12a", "12b")
WANTED = {  # figures of the outline that the draft had not
    "fig:escalera-mnist", "fig:escalera-cifar10", "fig:curvas-mnist", "fig:curvas-cifar10",
    "fig:misma-norma", "fig:cifar10-clases",
    "fig:pasos-mnist", "fig:pasos-cifar10", "fig:bode-jpeg", "fig:bode-detras", "fig:consciente-mnist",
    "fig:consciente-cifar10",
    "fig:autopsia", "fig:minimas", "fig:historias-mnist", "fig:historias-cifar10", "fig:antes-mnist",
    "fig:antes-cifar10",
    "fig:cambios", "fig:energia"}
ENGLISH = re.compile(
    r"\b(the|of|and|with|accuracy|loss|images?|attack|epochs|true|false|network|layer|noise|frequency)\b",
    re.I)
DOT = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
       "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def executed(path, folder):
    """Write a notebook with made-up outputs: a dot for a figure, a row for a table, a sentence for text."""
    notebook = nbformat.read(path, 4)
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        tags, (options, _) = cell.metadata.get("tags", ()), report_page.split_options(cell.source)
        header = {"claims": text.CLAIMS, "published": text.PUBLISHED, "provenance": ["artefacto", "hecho"]}
        chosen = next((header[tag] for tag in tags if tag in header),
                      ["red", "valor"] if "tbl-cap" in options else None)
        data = ({"text/markdown": text.markdown([[f"{path.stem} {i}" for i, _ in enumerate(chosen)]],
                                                chosen)} if chosen else
                {"image/png": DOT} if "fig-cap" in options
                else {"text/markdown": f"Lo que dice {path.stem}."} if tags else None)
        if cell.source.startswith("%%prosa"):
            said = re.sub(r"\{\{.*?\}\}", "1", cell.source.partition("\n")[2], flags=re.S)
            cell.outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": "In words."},
                                                   metadata={"prosa": {"markdown": said, "claims": []}})]
        elif data and "parameters" not in tags:
            cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    notebook.metadata["papermill"] = {"duration": 60.0, "parameters": {"seed": 7}}
    nbformat.write(notebook, folder / path.name)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("executed")
    for path in NOTEBOOKS:
        executed(path, folder)
    return folder


def rendered():
    """Return the report that `make report` has rendered here, if it has (others may be of one data set)."""
    return sorted((paths.ROOT / "notebooks" / "rendered").glob("report/report.html"))


@pytest.fixture(scope="module", params=["made up", *rendered()],
                ids=lambda path: getattr(path, "parent", path) and str(path)[-40:])
def report(request, made_up, tmp_path_factory):
    """The path of a report in HTML, its PDF beside it."""
    if request.param != "made up":
        return request.param
    path = tmp_path_factory.mktemp("article") / "report.html"
    for suffix in (".html", ".pdf"):
        article.build(made_up, path.with_suffix(suffix))
    return path


class Page(HTMLParser):
    """What a page holds: the attributes of its tags, its captions, and all its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.captions, self._inside = [], [], [], []
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "link", "br", "hr", "input", "col"):
            self._inside.append(tag)
        if tag in ("figcaption", "caption"):
            self.captions.append("")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script", "annotation"} & set(self._inside):
            self.text.append(data)
            if {"figcaption", "caption"} & set(self._inside):
                self.captions[-1] += data

    def values(self, name, *kinds):
        return [attributes[name] for tag, attributes in self.tags if name in attributes
                and (not kinds or tag in kinds)]


@pytest.fixture(scope="module")
def page(report):
    return Page(report)


def test_every_figure_of_the_draft_is_there_and_referred_to(page):
    captions = " ".join(page.captions)
    for number in DRAFT:
        assert f"Figura\u00a0{number}." in captions
    targets = {value[1:] for value in page.values("href", "a") if value.startswith("#")}
    labels = {value for value in page.values("id") if re.match("(fig|tbl):", value)}
    assert WANTED <= labels
    assert labels - targets == set(), "nothing refers to these"


def test_narrow_figures_stand_side_by_side(page):
    beside = [i for i, (tag, attributes) in enumerate(page.tags) if attributes.get("class") == "pair"]
    assert len(beside) == 4  # figures 2, 3, 6, and Grad-CAM before and after
    for i in beside:
        within = [attributes for tag, attributes in page.tags[i + 1:i + 8] if tag == "img"]
        assert len(within) == 2 and all("width:100" in attributes["style"].replace(" ", "")
                                        for attributes in within)


def test_nothing_is_left_unresolved(page):
    whole = "".join(page.text)
    for remnant in ("??", "@fig", "@tbl", "@sec", "@eq", "[@", "$$", "{#", "{{", "}}", "**", "\\begin",
                    "\\frac", "que aquí no se hizo"):
        assert remnant not in whole, whole[max(0, whole.find(remnant) - 80):whole.find(remnant) + 80]
    ids = set(page.values("id"))
    assert {value[1:] for value in page.values("href", "a") if value.startswith("#")} <= ids
    assert len(ids) == len(page.values("id"))


def test_captions_are_spanish_and_pictures_described(page):
    assert dict(page.tags)["html"]["lang"].startswith("es")
    for caption in page.captions:
        assert not ENGLISH.search(caption), caption
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert pictures and all(attributes.get("alt") for attributes in pictures)


def test_the_page_asks_for_nothing(page):
    for name in ("src", "data", "srcset"):
        assert all(value.startswith("data:") for value in page.values(name)), name
    assert all(value.startswith("data:") for value in page.values("href", "link"))
    assert "http" not in "".join(re.findall(r"url\([^)]*\)", "".join(page.values("style"))))


def test_the_page_opens_without_a_network(report, tmp_path):
    with chromium.started(tmp_path / "chromium", chromium.Tab) as tab:
        tab.open(report)
        wanted = [event["params"]["request"]["url"] for event in tab.events
                  if event["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith(("file:", "data:", "about:")) for url in wanted)
        assert not [event for event in tab.events if event["method"] == "Log.entryAdded"]
        assert tab.run("[...document.images].every(image => image.complete && image.naturalWidth)")
        tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1,
                 mobile=True)
        assert tab.run("document.documentElement.scrollWidth") <= 390  # a telephone


def test_the_pdf_is_an_article(report):
    pdf = pypdf.PdfReader(report.with_suffix(".pdf"))
    assert pdf.metadata.title == "Interpretabilidad de los ataques adversarios"
    assert "Kelley" in pdf.metadata.author
    root = pdf.trailer["/Root"]
    assert root["/Lang"].lower().startswith("es") and root["/MarkInfo"]["/Marked"]
    assert len(pdf.outline) > 5
    words = " ".join(page.extract_text() for page in pdf.pages)
    assert "Resumen" in words and "Índice" in words and "Referencias" in words and "??" not in words
    for page in pdf.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            inside = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
            assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(inside.get_object())


def test_tables_of_all_notebooks_are_one(made_up):
    (cell,) = article._everywhere(made_up, "claims", "Lo que se afirmaba.")
    lines = cell.outputs[0].data["text/markdown"].splitlines()
    assert lines[0] == "| " + " | ".join(text.CLAIMS) + " |"
    assert {line.split()[1] for line in lines[2:]} == {path.stem for path in NOTEBOOKS
                                                       if '"claims"' in path.read_text("utf8")}


def _prose(said, *tags):
    """Return an executed cell of prose, shown in words and kept as it was written."""
    told = {"prosa": {"markdown": said, "claims": []}}
    return nbformat.v4.new_code_cell("%%prosa", execution_count=1, metadata={"tags": list(tags)}, outputs=[
        nbformat.v4.new_output("display_data", data={"text/markdown": "In words."}, metadata=told)])


def test_prose_of_notebooks_becomes_text_with_the_article_s_own_numbers(tmp_path):
    figure = nbformat.v4.new_code_cell("#| label: fig:a\n#| fig-cap: Ante la @tbl:claims.\n#| fig-alt: A.",
                                       execution_count=1, metadata={
        "tags": ["part"]}, outputs=[nbformat.v4.new_output("display_data", data={"image/png": DOT}),
                                    nbformat.v4.new_output("display_data", data={
                                        "text/markdown": "**Figura 9.9.**"}, metadata={"caption": True})])
    verdict = _prose(text.markdown([["a", "b [@yin2019]", "se confirma"]], text.CLAIMS), "claims")
    verdict.source = "prose.verdicts(globals(), 'a')"
    nbformat.write(nbformat.v4.new_notebook(cells=[
        _prose("## 9.1 Parte\n\n$$a$$ {#eq:a}\n\nLa @fig:a, la @eq:a y [@yin2019].", "part"), figure,
        _prose("Se resume, 5 %.", "abstract"),
        _prose("Se concluye.", "conclusion"), verdict]), tmp_path / "09_nueve.ipynb")
    front, notebook = article.assemble("---\nabstract: |\n  {{*.abstract}}\n---\n\n# "
                                       "Uno\n\n{{09_nueve.part}}\n\n{{*.conclusion}}\n\n"
                                       "{{*.claims | Todo.}}\n", tmp_path)
    assert front == "abstract: |\n  Se resume, 5 %."
    said = "\n".join(cell.source for cell in notebook.cells)
    assert "### [1.0.1]{.header-section-number} Parte" in said and "Se concluye." in said
    assert "::: {.equation #eq:a}\n$$a$$\n\n(1)\n:::" in said
    assert "La [figura\u00a01.1](#fig:a), la [ecuación\u00a0(1)](#eq:a) y [@yin2019]." in said
    assert "In words" not in str(notebook) and "9.9" not in str(notebook) and "%%prosa" not in said
    assert notebook.cells[2].metadata["options"][
        "caption"] == "**Figura\u00a01.1.** Ante la [tabla\u00a01.1](#tbl:claims)."
    (table,
     ) = [cell for cell in notebook.cells if cell.metadata.get("options", {}).get("label") == "tbl:claims"]
    assert "| a | b [@yin2019] | se confirma |" in table.outputs[0].data["text/markdown"]


def test_the_appendix_tells_parameters_and_times(made_up):
    assert "| `seed` | 7 | 01, 02" in appendix.parameter_table(made_up)
    assert f"| total | {len(NOTEBOOKS)}.0 |" in appendix.times(made_up).replace("`", "")
    assert "tensorflow" in appendix.machine(made_up)


@pytest.mark.parametrize("words, message", [
    ("{{03_ataques.nothing}}", "has no cell of the label or tag 'nothing'"),
    ("{{99_nada.fig:x}}", "99_nada.ipynb, which has not been executed"),
    ("{{informe.nothing | Nada}}", "the appendix has .*, not 'nothing'"),
    ("La @fig:nothing.", "refers to fig:nothing, which is not there"),
    ("# Uno {#sec:a}\n\n# Dos {#sec:a}", "the label sec:a is there twice"),
    ("{{01_datos.fig:escala}}\n\n{{01_datos.fig:escala}}", "the label fig:escala is there twice"),
])
def test_what_is_missing_is_named(words, message, made_up):
    with pytest.raises(ValueError, match=message):
        article.assemble(f"---\ntitle: x\n---\n\n{words}\n", made_up)


def test_a_failed_cell_stops_the_article(made_up, tmp_path):
    notebook = nbformat.read(made_up / NOTEBOOKS[0].name, 4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no",
                                                        traceback=[])]
    nbformat.write(notebook, tmp_path / NOTEBOOKS[0].name)
    with pytest.raises(ValueError, match="01_datos.ipynb has a cell that failed, cell 2 .*ValueError: no"):
        article.included(tmp_path / NOTEBOOKS[0].name, "datos")


def test_a_notebook_that_was_killed_stops_the_article(made_up, tmp_path):
    notebook = nbformat.read(made_up / NOTEBOOKS[0].name, 4)
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    last.execution_count, last.outputs = None, []
    nbformat.write(notebook, tmp_path / NOTEBOOKS[0].name)
    for of in (lambda: article.included(tmp_path / NOTEBOOKS[0].name, "datos"),
               lambda: appendix.times(tmp_path)):
        with pytest.raises(ValueError,
                           match="01_datos.ipynb was not executed to its end: cell .* was not run"):
            of()


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """An article whose front page holds all that HTML, Markdown and Typst read in their own way."""
    front = {"title": 'A "b" #c $5 @d <e> <script>window.hit = 1</script> x < y 100 % [z]', "lang": "es-MX",
             "author": ['A "B" C', "D' # $x @me", 'quoted" + "out', "<script>window.hit = 1</script>"],
             "keywords": ['the "k"', "#l", "back\\slash", '"', "$5"], "course": '#n "o"',
             "abstract-title": "Resumen",
             "abstract": "Con <script>window.hit = 1</script> y <b onclick='window.hit = 1'>b</b>.\n"}
    monkeypatch.setattr(article, "SOURCE", tmp_path / "informe.md")
    article.SOURCE.write_text(f"---\n{yaml.safe_dump(front)}---\n\n# Uno\n\nDos.\n", "utf8")
    for suffix in (".html", ".pdf"):
        article.build(tmp_path, tmp_path / f"report{suffix}")
    return tmp_path / "report.html"


def test_any_name_and_title_can_be_written(odd):
    told = pypdf.PdfReader(odd.with_suffix(".pdf")).metadata
    assert told.author.startswith("A “B” C, D’ # $x @me, quoted” + “out, <script>")
    assert "the “k”, #l, back\\slash" in told["/Keywords"]
    assert told.title.startswith('A "b" #c $5 @d <e>') and "x < y 100 % [z]" in told.title
    said = "".join(Page(odd).text)
    # It stays as it was typed.
    assert "A “b” #c $5 @d <e>" in said and said.count("<script>window.hit = 1</script>") >= 3


def test_no_script_of_a_front_page_runs(odd, tmp_path):
    assert not [tag for tag, _ in Page(odd).tags if tag == "script"]
    with chromium.started(tmp_path / "chromium", chromium.Tab) as tab:
        tab.open(odd)
        assert tab.run("document.querySelector('b').click(), window.hit") is None


def test_an_unknown_citation_or_suffix_writes_nothing(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(article, "SOURCE", tmp_path / "informe.md")
    article.SOURCE.write_text("---\ntitle: x\n---\n\nAsí [@nobody1999].\n", "utf8")
    with pytest.raises(RuntimeError, match="nobody1999"):
        article.build(made_up, tmp_path / "report.html")
    with pytest.raises(ValueError, match="written as .html or .pdf"):
        article.build(made_up, tmp_path / "report.docx")
    assert not list(tmp_path.glob("*report*"))


def test_numbers_count_within_their_section_or_are_the_draft_s():
    def cell(**options):
        return nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data={})],
                                         metadata={"options": options})

    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell("# Uno\n\n$$a = b$$\n\n# Dos {#sec:dos}\n\n## Dentro\n\n$$c$$ "
                                      "{#eq:c}\n\nVéanse @fig:b, @eq:c y @sec:dos."),
        cell(**{"label": "fig:a", "fig-cap": "A", "num": "6a"}), cell(**{"label": "fig:b", "fig-cap": "B"}),
        nbformat.v4.new_markdown_cell("# Más {.appendix}\n\n## Aún más {#sec:mas}\n\n# Fin "
                                      "{.unnumbered}\n\n@sec:mas"),
        cell(**{"label": "tbl:t", "tbl-cap": "T"})])
    article.number_parts(notebook)
    first, _, _, last, _ = notebook.cells
    referred = "[figura\u00a02.1](#fig:b), [ecuación\u00a0(2)](#eq:c) y [sección\u00a02](#sec:dos)"
    assert referred in first.source and "## [2.1]{.header-section-number} Dentro" in first.source
    assert "[apéndice\u00a0A.1](#sec:mas)" in last.source
    captions = [cell.metadata["options"]["caption"] for cell in notebook.cells if cell.cell_type == "code"]
    assert captions == ["**Figura\u00a06a.** A", "**Figura\u00a02.1.** B", "**Tabla\u00a0A.1.** T"]
