"""The page of an executed notebook, of any: all that it shows is there, and nothing in it runs."""
import base64
import re
import subprocess
import sys

import nbformat
import pytest

from helpers.report import page as report_page
from helpers.report import labels, parameters
from helpers.tests import chromium
from helpers.tests.report.test_article import DOT, Page

new = nbformat.v4
SVG = ('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" '
       'onload="window.hit=1"><script>window.hit=1</script><rect width="40" height="20" fill="red"/></svg>')
FRAME = ('<div><style scoped>td {color: red}</style><table '
         'class="dataframe"><thead><tr><th></th><th>acc</th></tr></thead><tbody><tr><th>lenet</th><td '
         'onclick="window.hit=1">0.9125</td></tr></tbody></table></div><script>window.hit=1</script>')


def code(source, *outputs, count=1, tags=()):
    return new.new_code_cell(source, outputs=list(outputs), execution_count=count,
                             metadata={"tags": list(tags)})


def shown(**data):
    return new.new_output("display_data",
                          data={kind.replace("__", "/"): value for kind, value in data.items()})


def printed(text):
    return new.new_output("stream", name="stdout", text=text)


def failed(*lines):
    return new.new_output("error", ename="ValueError", evalue="no", traceback=list(lines))


def foreign():
    """Return an executed notebook that is not ours: no title, no options, and all that could break a page."""
    attached = new.new_markdown_cell("![pasted](attachment:a b.png)")
    attached["attachments"] = {"a b.png": {"image/png": DOT}}
    return new.new_notebook(cells=[
        code("# no title\nx = 1"),
        new.new_markdown_cell("Typed <script>window.hit=1</script> <img src=x onerror='window.hit=1'> "
                              "[away](javascript:window.hit=1) ![far](http://127.0.0.1:9/far.png) "
                              "![](lost.png) ![near](near.png) @dataclass @fig:none $|x|$\n\n"
                              "<iframe src='http://127.0.0.1:9/'></iframe>\n\n"
                              "<details><summary>more</summary>within</details>"),
        new.new_markdown_cell("```python\nunclosed"), new.new_markdown_cell("**strong after**"),
        new.new_markdown_cell("---\ntitle: taken over\n---"), new.new_markdown_cell("% no title either"),
        attached,
        code("print('''\n```\n# code\n`````\n''')", printed("```\n# no heading\n`````\n~~~\n::: "
                                                            "{.x}\n---\n<script>window.hit=1</script>\n")),
        code("bar", printed("  0%|  |\r100%|##|\nab\b\bcd\n\x1b[31mred\x1b[0m\x00\x0c end\n")),
        code("frame", new.new_output("execute_result", data={"text/html": FRAME, "text/plain": "plain"},
                                     execution_count=1)),
        code("plot", shown(text__html="<script>window.hit=1</script><div id='p'></div>")),
        code("frame", shown(text__html="<iframe src='http://127.0.0.1:9/'></iframe>")),
        code("widget", shown(**{"application/vnd.jupyter.widget-view+json": {"model_id": "a"},
                                "text/plain": "HBox()"})),
        code("sympy", shown(text__latex="$\\displaystyle y^2$")),
        code("plain", shown(text__plain="only plain")),
        code('#| fig-cap: A "quoted" caption <script>window.hit=1</script>\n#| label: '
             'not an anchor\ndot', shown(image__png=DOT)),
        code("#| [not: yaml\nsvg", shown(**{"image/svg+xml": SVG})),
        code("fails", failed("\x1b[31mTraceback\x1b[0m", "ValueError: no"), tags=["raises-exception"]),
        new.new_raw_cell("raw ``` cell"), code("", count=None),
        code("not run", count=None, tags=["skip-execution"]),
        code("last", shown(text__markdown="```\nunclosed output")), new.new_markdown_cell("The **end**.")])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder, ñ")
    (folder / "near.png").write_bytes(base64.b64decode(DOT))
    nbformat.write(foreign(), folder / "my note (1).ipynb")
    return folder / "my note (1).ipynb"


@pytest.fixture(scope="module")
def written(path):
    return report_page.write_page(path)


def test_a_page_of_any_notebook_is_whole(path, written):
    assert written == [path.with_suffix(".html"), path.with_suffix(".pdf")]
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([
        "near.png", *(f"my note (1){s}" for s in (".html", ".ipynb", ".pdf"))])
    page = Page(written[0])
    said, tags = "".join(page.text), [tag for tag, _ in page.tags]
    for words in ("strong after", "title: taken over", "% no title either", "# no heading", "::: {.x}",
                  "100%|##|\ncd\nred end\n",
                  "0.9125", "acc", "only plain", "Traceback\nValueError: no", "raw ``` cell",
                  "unclosed output", "The end.",
                  "falta la imagen lost.png", "@dataclass @fig:none", "within", "Figura\u00a01."):
        assert words in said, words
    # The tables are the data frame and "title: taken over".
    assert tags.count("table") == 2 and not {"script", "iframe", "object"} & set(tags)
    assert not {"h1", "h2"} & set(tags) and tags.count("strong") == 3  # two of the text, one of the caption
    assert said.count("solo se ve en Jupyter") == 3 and "  0%" not in said
    assert sum(tag == "img" for tag, _ in page.tags) == 4  # near, pasted, the dot, the drawing
    assert len(set(page.values("id"))) == len(page.values("id"))


def test_nothing_of_a_page_runs_or_is_asked_for(written, tmp_path):
    with chromium.started(tmp_path / "chromium", chromium.Tab) as tab:
        tab.open(written[0])
        tab.run("document.querySelectorAll('td, a:not([href^=http])').forEach(each => each.click())")
        assert tab.run("window.hit") is None and tab.run("document.title") == "my note (1)"
        assert tab.run("[...document.images].every(image => image.complete && image.naturalWidth)")
        # The page has its style.
        assert tab.run("getComputedStyle(document.querySelector('table')).borderTopStyle") == "solid"
        assert tab.run("document.querySelector('math').getBoundingClientRect().height") > 5
        asked = [event["params"]["request"]["url"] for event in tab.events
                 if event["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []


@pytest.mark.parametrize("change, message", [
    (lambda cell: cell.update(execution_count=None),
     r"not executed to its end: cell 22 \(last\) was not run"),
    (lambda cell: cell.metadata.update(papermill={"status": "running"}), r"cell 22 \(last\) was not run"),
    (lambda cell: cell.update(outputs=[failed()]),
     r"has a cell that failed, cell 22 \(last\): ValueError: no"),
])
def test_what_did_not_run_to_its_end_has_no_page(change, message, tmp_path):
    notebook = foreign()
    change(notebook.cells[-2])
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    with pytest.raises(ValueError, match=f"mine.ipynb.*{message}"):
        report_page.write_page(tmp_path / "mine.ipynb")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.ipynb"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff\xfe", b'{"cells": [{"cell_type": "co'])
def test_what_is_no_notebook_is_told_in_a_line(content, tmp_path):
    (tmp_path / "cut.ipynb").write_bytes(content)
    run = subprocess.run([sys.executable, "-m", "helpers.report.page", tmp_path / "cut.ipynb"],
                         capture_output=True, text=True)
    assert run.returncode == 1 and run.stdout == ""
    why = "The page was not written: .*cut.ipynb cannot be read as a notebook: .*\n"
    assert re.fullmatch(why, run.stderr)


@pytest.mark.parametrize("text", ["`", "``` python", "a\n```\nb\n``````\n", "~~~", "    ```"])
def test_a_fence_holds_any_text(text):
    page = report_page.pandoc(f"{report_page.fenced(text, '.output')}\n\n# After", "html5",
                              "--metadata=pagetitle:x")
    assert re.findall("<h1.*?>(.*)</h1>", page) == ["After"]
    assert re.search(r'(?s)<pre class="output"><code>(.*)</code></pre>', page)[1] == text.rstrip()


@pytest.mark.parametrize("text, open_at", [("```\na", "```"), ("~~~~ x\n```\n~~~", "~~~~"),
                                           ("a `b` ```c```", ""), ("```\na\n`````", ""),
                                           ("```\n``\n", "```"), ("- a\n- b", "")])
def test_markdown_closes_what_it_opens(text, open_at):
    assert report_page.closed(text) == (f"{text}\n{open_at}" if open_at else text)


def test_every_reference_of_a_notebook_is_to_a_label_of_its_own_or_of_another():
    for path in parameters.NOTEBOOKS.glob("[0-9]*.ipynb"):
        cells = nbformat.read(path, 4).cells
        texts = [cell.source for cell in cells if labels.is_prose(cell)]
        texts += [str(options.get(f"{kind}-cap")) for _, kind, options, _ in labels.counted(cells)]
        told = {found[1] for text in texts for found in labels.REFERENCE.finditer(text)}
        assert told <= labels.known().keys(), path


def test_a_reference_to_another_notebook_is_words_and_no_link():
    cells = [new.new_markdown_cell("La @fig:escala, la @fig:mine y la @fig:none.")]
    report_page.resolve(cells, {"fig:mine": "9.1"}, strict=False)
    shown = cells[0].source
    assert shown == f"La {labels.known()['fig:escala']}, la [figura\u00a09.1](#fig:mine) y la @fig:none."
