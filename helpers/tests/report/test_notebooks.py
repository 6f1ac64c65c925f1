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
from helpers.report import page, parameters

NOTEBOOKS = sorted(parameters.NOTEBOOKS.glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def _code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_no_outputs(path):
    for cell in _code_cells(path):
        assert not cell.outputs and cell.execution_count is None


def test_one_parameters_cell_of_literals(path):
    tagged = [cell for cell in _code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert "#" in line, f"{line} does not tell its unit or meaning"


def test_cells_are_short(path):
    lengths = [len(page.split_options(cell.source)[1].splitlines()) for cell in _code_cells(path)]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 10


def test_every_figure_is_described(path):
    for cell in _code_cells(path):
        options, code = page.split_options(cell.source)
        if "plt.show()" in code:
            assert {"label", "fig-cap", "fig-alt"} <= options.keys(), code


def test_no_path_tricks(path):
    for cell in _code_cells(path):
        assert "sys.path" not in cell.source and "chdir" not in cell.source


def test_helpers_comes_before_tensorflow(path):
    code = "\n".join(page.split_options(cell.source)[1] for cell in _code_cells(path))
    imports = [node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    roots = [(node.names[0].name if isinstance(node, ast.Import) else node.module).split(".")[0] for node in imports]
    late = [name for name in ("tensorflow", "keras", "cleverhans") if name in roots]
    assert all(roots.index("helpers") < roots.index(name) for name in late)  # which sets how TensorFlow is loaded


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
