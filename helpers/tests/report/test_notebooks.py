"""The notebooks' form, and what they do with parameters; executing them is `make smoke`'s part."""
import ast
import os
import statistics
import subprocess
import sys

import nbformat
import papermill
import pytest
import yaml

from helpers.artifacts import paths
from helpers.report import labels, page, parameters

NOTEBOOKS = sorted(parameters.NOTEBOOKS.glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(params=[path for path in NOTEBOOKS if "%%prosa" in path.read_text("utf8")],
                ids=lambda path: path.stem)
def converted(request):
    """A chapter whose prose stands in %%prosa, of which more is asked."""
    return request.param


def _code_cells(path):
    """Return the cells of Python; those of prose are none."""
    return [cell for cell in nbformat.read(path, 4).cells
            if cell.cell_type == "code" and not labels.is_prose(cell)]


def _parsed(cell):
    return ast.parse(page.split_options(cell.source)[1])


def test_no_outputs(path):
    for cell in _code_cells(path):
        assert not cell.outputs and cell.execution_count is None


def test_one_parameters_cell_of_literals(path):
    tagged = [cell for cell in _code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert "#" in line, f"{line} does not tell its unit or meaning"


def sentences(cell):
    """Return the texts of a code cell that are sentences, or their pieces: four words in a row."""
    texts = [node.value for node in ast.walk(_parsed(cell)) if isinstance(node, ast.Constant)
             and isinstance(node.value, str)]
    return [text for text in texts if page.re.search(r"(?:[^\W\d]+ +){3}[^\W\d]+", text)]


def test_code_glues_no_sentence_together(converted):
    assert [found for cell in _code_cells(converted) for found in sentences(cell)] == []


def test_a_glued_sentence_is_found():
    cell = nbformat.v4.new_code_cell("#| fig-cap: Lo que se ve en la figura\ntext.say(f'La red acierta en "
                                     "todas {n}')")
    assert sentences(cell) == ["La red acierta en todas "]
    assert sentences(nbformat.v4.new_code_cell("figures.decorate(ax, 'distancia $L_2$', 'imágenes')")) == []


DEFINED = {"0.99": "from which on a pixel counts as white", "10 %": "the share of chance, of ten classes"}


def typed_numbers(source):
    """Return the decimals, percentages and thousands that a claimed paragraph does not have filled in."""
    head, _, body = source.partition("\n")
    told = page.re.sub(r"\{\{.*?\}\}|\[[-@][^\]]*\]|\$[^$]*\$", "", body, flags=page.re.S)
    return page.re.findall(r"\d+\.\d+|\d+ %|\d+,\d{3}", told) if head.split()[1:] else []


def test_a_claimed_paragraph_types_no_number_by_hand(converted):
    cells = nbformat.read(converted, 4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "code" and labels.is_prose(cell)]
    assert [number for source in prose for number in typed_numbers(source) if number not in DEFINED] == []


def test_a_typed_number_is_found():
    source = ("%%prosa a-claim\nPublican 8.75 % [@he2016, tabla 6] de 10,000, y aquí {{ x | pct(2) }} con "
              "$\\varepsilon = 0.1$.")
    assert typed_numbers(source) == ["8.75", "10,000"]  # and not that of the citation, nor of the formula
    assert typed_numbers(source.replace(" a-claim", "")) == []


def test_a_function_is_defined_only_where_the_text_teaches_it(converted):
    for cell in _code_cells(converted):
        defined = [node.name for node in ast.walk(_parsed(cell))
                   if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert not defined or "taught" in cell.metadata.get(
            "tags", []), f"{defined}: tag the cell as taught, or move it"


def test_code_cells_are_short_and_their_lines_fit(converted):
    cells = _code_cells(converted)
    lengths = [len(page.split_options(cell.source)[1].splitlines()) for cell in cells]
    assert statistics.median(lengths) <= 4 and max(lengths) <= 20
    assert [line for cell in cells for line in cell.source.splitlines() if len(line) > 110] == []


def test_the_first_cell_imports_at_most_six_names(converted):
    imported = [name for node in _parsed(_code_cells(converted)[0]).body for name in node.names]
    assert 0 < len(imported) <= 6


def test_every_figure_is_described(path):
    for cell in _code_cells(path):
        options, code = page.split_options(cell.source)
        if "plt.show()" in code or "figures.show()" in code:
            assert {"label", "fig-cap", "fig-alt"} <= options.keys(), code


def test_no_path_tricks(path):
    for cell in _code_cells(path):
        assert "sys.path" not in cell.source and "chdir" not in cell.source


def test_helpers_comes_before_tensorflow(path):
    code = "\n".join(page.split_options(cell.source)[1] for cell in _code_cells(path))
    imports = [node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    roots = [(node.names[0].name if isinstance(node, ast.Import) else node.module).split(".")[0]
             for node in imports]
    late = [name for name in ("tensorflow", "keras", "cleverhans") if name in roots]
    # It sets how TensorFlow is loaded.
    assert all(roots.index("helpers") < roots.index(name) for name in late)


def test_profiles(path):
    inferred = papermill.inspect_notebook(str(path))
    report = yaml.safe_load((parameters.NOTEBOOKS / "report.yaml").read_text())
    smoke = yaml.safe_load((parameters.NOTEBOOKS / "smoke.yaml").read_text())
    assert report.keys() == smoke.keys()
    for name, value in report.items():
        if name in inferred:
            assert yaml.safe_load(inferred[name]["default"].replace("None", "null")) == value


def test_every_citation_is_in_the_bibliography(path):
    bibliography = (parameters.NOTEBOOKS / "references.bib").read_text("utf8")
    for cell in nbformat.read(path, 4).cells:
        for key in page.re.findall(r"@([a-z]+\d{4}|mnist|cifar)\b", cell.source):
            assert f"{{{key}," in bibliography


@pytest.mark.parametrize("name, arguments, message", [
    ("02_entrenamiento", ["-p", "dataset", "fashion"], "dataset must be .*'fashion'"),
    ("02_entrenamiento", ["-p", "epochs", "-1"], "epochs must be .*got -1"),
    ("01_datos", ["-p", "dataset", "mnist"], "unknown parameter dataset"),
])
def test_a_wrong_parameter_stops_at_once_and_is_said_first_and_last(name, arguments, message, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    run = subprocess.run(
        [sys.executable, "-m", "papermill", "-k", "python3", f"{name}.ipynb",
         str(tmp_path / "out.ipynb"), "--no-progress-bar", *arguments],
        cwd=parameters.NOTEBOOKS, capture_output=True, text=True, env=environment)
    assert run.returncode != 0
    before, _, after = run.stderr.partition("Traceback (most recent call last)")
    assert page.re.search(f"^{message}", before, page.re.M)
    assert page.re.match(f"ValueError: {message}", after.strip().splitlines()[-1])
    assert "absl" not in run.stderr and "TCP without" not in run.stderr
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    errors = [output for cell in out.cells for output in cell.get("outputs", [])
              if output.output_type == "error"]
    assert page.re.search(message, errors[0].evalue)
    done = [cell for cell in out.cells if cell.cell_type == "code" and cell.execution_count]
    assert len(done) <= 4  # imports, parameters, the injected ones, and the check


def test_the_project_names_no_absolute_path():
    for path in [*NOTEBOOKS, *paths.ROOT.glob("helpers/**/*.py"), *paths.ROOT.glob("Makefile")]:
        assert str(paths.ROOT) not in path.read_text("utf8")
