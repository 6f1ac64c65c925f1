"""The Makefile, before and beside what it runs: values that it refuses, what it makes again, the lock."""
import importlib.metadata
import os
import re
import shutil
import subprocess

import pytest

from helpers import lock
from helpers.artifacts import paths

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
CLEAN = {name: value for name,
         value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def _make(folder, *arguments, **environment):
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True,
                          env=CLEAN | environment)


@pytest.fixture
def project(tmp_path):
    """The Makefile, the list of packages and empty notebooks, in a folder with spaces and an accent."""
    folder = tmp_path / "una carpeta ñ"
    (folder / "notebooks").mkdir(parents=True)
    for name in ("Makefile", "environment.yml"):
        shutil.copy(paths.ROOT / name, folder)
    without = shutil.ignore_patterns("tests", "__pycache__")
    shutil.copytree(paths.ROOT / "helpers", folder / "helpers", ignore=without)
    for name in ("01_datos.ipynb", "02_entrenamiento.ipynb", "report.yaml", "informe.md", "references.bib"):
        (folder / "notebooks" / name).touch()
    return folder


@pytest.mark.parametrize("arguments, message", [
    (["verify", "MINUTES=ten"], "MINUTES must be a positive number, got 'ten'"),
    (["verify", "MINUTES=-1"], "MINUTES must be a positive number, got '-1'"),
    (["verify", "MINUTES=0"], "MINUTES must be a positive number, got '0'"),
    (["page"], "FILE must be the path of an executed notebook, got ''"),
    (["page", "FILE=a $$(touch b) c"], "FILE must be the path of an executed notebook, got 'a $(touch b) c'"),
    (["data", "FROM=no such/folder"], "FROM must be a folder that holds cifar10.npz, got 'no such/folder'"),
    (["sweep", "NOTEBOOK=a b"], "NOTEBOOK must be the path of a notebook, got 'a b'"),
    (["sweep", "WORKERS=0"], "WORKERS must be an integer >= 1, got '0'"),
    (["bench", "N=1.5"], "N must be an integer >= 1, got '1.5'"),
    (["report", "FRESH=yes"], "FRESH must be 0 or 1, got 'yes'"),
    (["report", "PROFILE=a b"], "PROFILE must be the name of a file notebooks/NAME.yaml, got 'a b'"),
    (["report", "PROFILE=mine"], "There is no notebooks/mine.yaml: copy notebooks/report.yaml to "
                                 "notebooks/mine.yaml"),
])
def test_a_wrong_value_is_refused_by_name_before_anything_is_set_up(project, arguments, message):
    done = _make(project, *arguments)
    assert done.returncode and message in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) + len(done.stderr.splitlines()) <= 2  # of which one is make's own
    assert not (project / ".venv").exists() and not (project / "b").exists()


def test_an_empty_list_of_packages_is_no_set_up(project):
    python = project / "a python"  # makes no environment but its folder
    python.write_text("#!/bin/sh\nmkdir -p .venv\n")
    python.chmod(0o755)
    (project / "environment.yml").write_text("dependencies:\n  - pip:\n")
    done = _make(project, "setup", f"PYTHON={python}")
    assert done.returncode and "environment.yml lists no package" in done.stdout
    assert not (project / ".venv" / "ready").exists()


def test_sed_lists_what_the_lock_reads(project):
    makefile = (project / "Makefile").read_text("utf8")
    scripts = re.search(r"@sed (-n -e .* -e .*) environment.yml", makefile)[1]
    said = subprocess.run(["sed", "--version"], capture_output=True, text=True).stdout
    command = f"sed {'--posix' if 'GNU' in said else ''} {scripts} environment.yml"
    listed = subprocess.run(command, shell=True, cwd=project, capture_output=True, text=True)
    assert listed.stdout.splitlines() == lock.requirements() and len(lock.requirements()) > 20


def test_an_executed_notebook_that_was_deleted_is_made_again(project):
    folders = [project / "notebooks" / kind / "report" for kind in ("executed", "rendered")]
    for time, folder in zip((2e9, 2e9 + 10), folders, strict=True):
        folder.mkdir(parents=True)
        for name in ("01_datos.ipynb", "02_entrenamiento.ipynb", "report.html"):
            (folder / name).touch()
            os.utime(folder / name, (time, time))
    (project / ".venv").mkdir()
    (project / ".venv" / "ready").touch()
    assert "Nothing to be done" in _make(project, "html", CONDA_DEFAULT_ENV="").stdout
    (folders[0] / "02_entrenamiento.ipynb").unlink()
    planned = _make(project, "-n", "html", CONDA_DEFAULT_ENV="").stdout
    assert "helpers.report.execute notebooks/report.yaml notebooks/02_entrenamiento.ipynb" in planned
    assert "helpers.report.article" in planned and "01_datos" not in planned


def test_make_uses_the_environment_that_conda_has_activated(project):
    planned = _make(project, "-n", "test", CONDA_DEFAULT_ENV="ataques-adversarios",
                    CONDA_PREFIX="/a b").stdout
    assert '"/a b/bin/python" -m pytest' in planned and "venv" not in planned
    planned = _make(project, "-n", "test", CONDA_DEFAULT_ENV="base", CONDA_PREFIX="/a b").stdout
    assert '".venv/bin/python" -m pytest' in planned and "/a b" not in planned


def test_the_lock_fixes_all_that_is_installed():
    locked = dict(line.split("==") for line in lock.LOCK.read_text("utf8").splitlines() if "#" not in line)
    for requirement in lock.requirements():
        if not requirement.startswith("-e"):
            name, version = requirement.split("==")
            assert locked[re.sub(r"[-_.]+", "-", name)] == version, "make lock"
    needed, seen = ["tensorflow", "papermill", "jupyterlab", "distributed"], set()
    while needed:  # all that these bring, as installed here
        name = re.sub(r"[-_.]+", "-", needed.pop()).lower()
        if name not in seen:
            seen.add(name)
            found = importlib.metadata.distribution(name)
            assert locked[name] == found.version
            needed += [re.match(r"[\w.-]+", text)[0] for text in found.requires or () if _applies(text)]
    assert len(seen) > 80


def _applies(requirement):
    from packaging.requirements import Requirement
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": ""})


@pytest.mark.parametrize("given, seen",
                         [("C", "C.UTF-8"), ("POSIX", "C.UTF-8"), ("es_MX.UTF-8", "es_MX.UTF-8")])
def test_an_ascii_locale_does_not_reach_what_runs(project, given, seen):
    assert _make(project, "--eval", "show: ; @echo $$LC_ALL $$PYTHONUTF8", "show",
                 LC_ALL=given).stdout == f"{seen} 1\n"
