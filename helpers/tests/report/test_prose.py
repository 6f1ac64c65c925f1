"""Prose with numbers: what filters write, what is named if it is not there, what kernels and pages show."""
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import numpy as np
import papermill
import pytest

from helpers.report import citations, filling, labels, page, prose

new = nbformat.v4


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


FACTS = {"x": 0.12345, "n": 60000, "e": Estimate(0.5, 0.456, 0.544), "v": np.array([1.29, 1.11]),
         "names": ["sol", "luna", "iris"],
         "recipe": SimpleNamespace(model="lenet", dataset="mnist"), "data": SimpleNamespace(name="cifar10")}


@pytest.mark.parametrize("template, written", [
    ("{{ n }} y {{ n | num }}", "60,000 y 60,000"), ("{{ x | num(2) }}", "0.12"),
    ("{{ -x | num(2) }}", "−0.12"),
    ("{{ x | cifras }}", "0.12"), ("{{ x | pct }}", "12.3\u00a0%"), ("{{ x | pct(0) }}", "12\u00a0%"),
    ("{{ e | ic(2) }}", "0.50 [0.46;\u00a00.54]"), ("{{ (1.5, 1, 2) | ic(1) }}", "1.5 [1.0;\u00a02.0]"),
    ("{{ e | ic_pct }}", "50.0\u00a0% [45.6; 54.4]"), ("{{ x | puntos }}", "12.3"),
    ("{{ e | puntos }}", "50.0 [45.6;\u00a054.4]"),
    ("{{ v | rango(1) }}", "1.1 a 1.3"), ("{{ v | rango(0) }}", "1"),
    ("{{ v | rango_pct(0) }}", "111 a 129\u00a0%"),
    ("{{ names | lista }}", "sol, luna e iris"), ("{{ names[:2] | lista }}", "sol y luna"),
    ("{{ names[:1] | lista }}", "sol"),
    ("{{ (8 / 255) | radio(data) }} y {{ 0.3 | radio('mnist') }}", "8/255 y 0.3"),
    ("{{ recipe | red }}", "LeNet-5 en MNIST"),
    ("{{ data | conjunto }}", "CIFAR-10"), ("{{ names | length }}", "3"), ("{{ max(v) | num(2) }}", "1.29"),
    ("$$a$$ {#eq:a} y 5 % {#sec:b}", "$$a$$ {#eq:a} y 5 % {#sec:b}"),
])
def test_numbers_are_written_as_in_mexico(template, written):
    assert filling.fill(template, FACTS, "here") == written


@pytest.mark.parametrize("template, named", [
    ("{{ zerros | pct }}", "'zerros' is undefined"), ("{{ zerros }}", "'zerros' is undefined"),
    ("{{ e.hihg | num }}", "has no attribute 'hihg'"),
    ("{{ x | num(digits) }}", "digits"), ("{{ x }}", "0.12345 needs a filter"),
    ("{{ None }}", "None needs a filter"),
    ("{{ x | pc }}", "No filter named 'pc'"),
    ("{{ x | ic }}", "an interval is a value, its low and its high end, got 0.12345"),
    ("a\n{{ x", "line 2 of the text"), ("{{ names | lista }} {{ nothing.more }}", "'nothing' is undefined"),
])
def test_what_is_amiss_is_named_with_its_cell(template, named):
    with pytest.raises(ValueError, match="^the cell In .*: ") as caught:
        prose.said([], template, FACTS, "the cell In [7], «El …»")
    assert named in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("Así [@madry2018, tabla 6].", "Así (Madry y otros, 2018, tabla 6)."),
    ("[@carlini2017; @das2017]", "(Carlini y Wagner, 2017; Das y otros, 2017)"),
    ("Yin y otros [-@yin2019]", "Yin y otros (2019)"),
    ("@carlini2017 dicen", "Carlini y Wagner (2017) dicen"),
    ("[@lecun1998; @mnist]", "(LeCun, Bottou y otros, 1998; LeCun, Cortes y otros, 1998)"),
    ("`@fig:nada` y $a@b$, a@b.mx", "`@fig:nada` y $a@b$, a@b.mx"),
    ("(@sec:ataques)", "(sección\u00a02.3 del informe)"),
    ("el @sec:comprobaciones", "el apéndice\u00a0A del informe"),
    ("## Uno {#sec:uno}\n\nDos", "## Uno\n\nDos"),
])
def test_references_and_citations_read_as_words(text, words):
    assert citations.in_words(text) == words


@pytest.mark.parametrize("text, message", [
    ("la @fig:escla", "no notebook has the label fig:escla .did you mean fig:escala"),
    ("[@madry2081]", "references.bib has no entry madry2081 .did you mean madry2018"),
    ("@nobody", "no entry nobody")])
def test_what_is_not_there_cannot_be_referred_to(text, message):
    with pytest.raises(ValueError, match=message):
        citations.in_words(text)


def test_a_label_is_there_once_in_all_notebooks():
    names = [name for path in sorted(labels.NOTEBOOKS.glob("[0-9]*.ipynb"))
             for name in labels.numbers(nbformat.read(path, 4).cells)]
    assert len(set(names)) == len(names) > 0


def test_numbers_in_words_are_those_of_the_pages():
    for path in labels.NOTEBOOKS.glob("[0-9]*.ipynb"):
        notebook = nbformat.read(path, 4)
        wanted = {name: labels.words(name, number) for name, number in labels.numbers(notebook.cells).items()}
        made, _ = page.CellOptions().preprocess(notebook, {})
        for cell in made.cells:
            options = cell.metadata.get("options", {})
            if "caption" in options and "label" in options:
                assert options["caption"].startswith(f"**{wanted[options['label']].capitalize()}.** ")


CLAIMS = """from helpers.report import prose
from helpers.report.claims.record import Claim, Draft, chapters
chapters()["99"] = {claim.name: claim for claim in (
    Claim("one", "Casi todo es cero", "zeros > 0.75", "es cero el {{ zeros | pct }}",
          draft=Draft("Todo es cero", "§ 2", "se refuta")),
    Claim("two", "Casi nada es cero", "zeros < 0.25", "es cero el {{ zeros | pct }}",
          draft=Draft("Nada lo es", "§ 3", "se confirma")),
    Claim("three", "Es verde", "green", "es {{ green }}", measured="zeros > 2",
          draft=Draft("Es verde", "§ 4", "se confirma")))}
import matplotlib.pyplot as plt
from IPython.display import Markdown
zeros = 0.8123"""
SHOWS = "plt.plot([1])\nplt.show()"


def source():
    """Return a notebook whose cells say and show all there is."""
    codes = [CLAIMS, f"prose.install({'own.ipynb'!r})\nprose.install({'own.ipynb'!r})",
             "%%prosa one\nEl {{ zeros | pct }} de la @fig:line, de la @tbl:things y de la @eq:first, con la "
             "@fig:escala [@yin2019].",
             "%%prosa\n## Parte\n\n$$a$$ {#eq:first}", "%%prosa two one\nCasi nada.",
             "%%prosa three\nEs verde.",
             "#| label: fig:line\n#| fig-alt: Una línea.\n#| fig-cap: >\n#|   Una línea de la\n#|   "
             f"@tbl:things.\n{SHOWS}",
             "#| label: tbl:things\n#| tbl-cap: Cosas.\nMarkdown('| a |\\n|---|\\n| 1 |')",
             "#| label: fig:none\n#| fig-cap: Nada.\n#| fig-alt: Nada.\nzeros;",
             "prose.verdicts(globals(), 'one', 'two', 'three')"]
    cells = [new.new_code_cell(code) for code in codes]
    cells[2].metadata["tags"], cells[-1].metadata["tags"] = ["conclusion"], ["claims"]
    return new.new_notebook(cells=[new.new_markdown_cell("# 8. Prueba"), *cells])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The path of that notebook, executed by papermill alone."""
    folder = tmp_path_factory.mktemp("prose")
    nbformat.write(source(), folder / "own.ipynb")
    papermill.execute_notebook(folder / "own.ipynb", folder / "out.ipynb", kernel_name="python3",
                               progress_bar=False, cwd=folder)
    return folder / "out.ipynb"


@pytest.fixture(scope="module")
def shown(path):
    """What each cell shows as Markdown, a list for each."""
    return [[output.data["text/markdown"] for output in cell.get("outputs", ())
             if "text/markdown" in output.get("data", {})]
            for cell in nbformat.read(path, 4).cells]


def test_a_kernel_shows_prose_in_words(shown):
    assert shown[3] == ["El 81.2\u00a0% de la figura\u00a08.1, de la tabla\u00a08.1 y de la "
                        f"ecuación\u00a0(8.1), con la {labels.known()['fig:escala']} (Yin y otros, 2019)."]
    assert shown[4] == ["## Parte\n\n$$a \\tag{8.1}$$"]


def test_a_paragraph_whose_claim_fails_is_replaced(shown):
    assert shown[5] == ["**En esta ejecución no se cumple.** El informe publicado dice: «Casi nada es cero». "
                        "Aquí, en cambio: es cero el 81.2\u00a0%."]
    assert shown[6] == ["**En esta ejecución no se midió.** El informe publicado dice: «Es verde»."]


def test_a_kernel_shows_captions_of_what_was_shown(shown):
    assert shown[7] == ["**Figura\u00a08.1.** Una línea de la tabla\u00a08.1."]
    assert shown[8][1:] == ["**Tabla\u00a08.1.** Cosas."] and shown[9] == []


def test_verdicts_are_of_the_same_claims(shown):
    (table,) = shown[10]
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert rows == [["Todo es cero (§ 2)", "es cero el 81.2\u00a0%", "se refuta"],
                    ["Nada lo es (§ 3)", "es cero el 81.2\u00a0%",
                     "aquí no se sostiene el veredicto publicado («se confirma»)"],
                    ["Es verde (§ 4)", "–", "no se midió en esta ejecución"]]


def test_a_page_shows_text_and_links_and_no_template(path):
    made = page.html(page.executed(path), "out", path.parent)
    for words in ('<p>El 81.2\u00a0% de la <a href="#fig:line">figura\u00a08.1</a>, de la <a '
                  'href="#tbl:things">tabla\u00a08.1</a> y de la <a href="#eq:first">ecuación\u00a0(8.1)</a>',
                  '<h2>Parte</h2>', 'id="eq:first" class="equation"', 'id="ref-yin2019"',
                  f"con la {labels.known()['fig:escala']} <span"):
        assert words in made
    assert "%%prosa" not in made and "Casi nada." not in made and "@" not in "".join(
        made.split("<body")[1].split("data:")[0])
    assert made.count("Figura\u00a08.1") == 1 and made.count("Cosas.") == 1  # the kernel's captions are gone


AMISS = {
    "%%prosa one\nEl {{ zerros | pct }} de todo.": "the cell In [3], «El {{ zerros | pct }} de todo. …»: "
                                                   "'zerros' is undefined",
    "%%prosa on\nTodo.": "the cell In [4], «Todo. …»: there is no claim on (did you mean one?)",
    "%%prosa\nLa @fig:escla.": "the cell In [5], «La @fig:escla. …»: no notebook has the label fig:escla",
    "prose.verdicts(globals(), 'on')": "there is no claim on (did you mean one?)",
    "del zeros\nprose.verdicts(globals(), 'one')": "the table of verdicts, claim one: 'zeros' is undefined"}


def test_an_error_is_a_line_that_names_cell_and_what_is_amiss(tmp_path):
    notebook = source()
    notebook.cells = [*notebook.cells[:3],
                      *(new.new_code_cell(cell, metadata={"tags": ["raises-exception"]}) for cell in AMISS)]
    nbformat.write(notebook, tmp_path / "own.ipynb")
    with pytest.raises(papermill.PapermillExecutionError):
        papermill.execute_notebook(tmp_path / "own.ipynb", tmp_path / "out.ipynb", kernel_name="python3",
                                   progress_bar=False, cwd=tmp_path)
    failed = {cell.source: cell.outputs for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells
              if cell.source in AMISS}
    assert failed.keys() == AMISS.keys()
    for cell, message in AMISS.items():
        (error,) = failed[cell]
        assert error.evalue.startswith(message) and error.traceback == [f"ValueError: {error.evalue}"]
