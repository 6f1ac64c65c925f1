"""Executing a notebook: what appears under its name, what is said, and who waits for whom."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import nbformat
import pytest

from helpers.artifacts import paths, progress
from helpers.report import execute

BARS = """import time
from helpers.artifacts.progress import tqdm
for i in tqdm(range(n), desc="work", unit="image"):
    time.sleep(0.2)"""


@pytest.fixture
def folder(tmp_path):
    """A folder with spaces and an accent, where notebooks, profiles and results of a test lie."""
    path = tmp_path / "una carpeta ñ"
    path.mkdir()
    (path / "mine.yaml").write_text("n: 3\n", "utf8")
    return path


def _notebook(folder, *sources, name="01_uno", parameters="n = 1"):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
             *map(nbformat.v4.new_code_cell, sources)]
    path = folder / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}),
                   path)
    return path


def _arguments(folder):
    return [folder / "mine.yaml", folder / "01_uno.ipynb", folder / "out" / "01_uno.ipynb"]


def _command(folder):
    return [sys.executable, "-m", "helpers.report.execute", *_arguments(folder)]


# What ipykernel may say of the interrupt by which Jupyter ends it, if it comes at that moment.
LATE = "[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel.\n"


@pytest.fixture
def run(folder, monkeypatch, capfd):
    """A function that executes the notebook here and returns (output, errors, whether it failed)."""
    def run():
        monkeypatch.setattr(progress, "EVERY", 1e9)  # seconds: no line of a slow machine's comes between
        monkeypatch.setattr(sys, "argv", ["execute", *map(str, _arguments(folder))])
        failed = False
        try:
            execute.main()
        except SystemExit as error:  # whose words Python would print
            failed = True
            print(error, file=sys.stderr)
        output, errors = capfd.readouterr()
        return output, errors.replace(LATE, ""), failed
    return run


def _names(folder):
    return sorted(path.name for path in (folder / "out").glob("*") if path.name[0] != ".")


def test_a_notebook_is_given_its_own_parameters_alone(folder, run):
    _notebook(folder, name="02_dos", parameters="n = 1\nm = 2")
    (folder / "mine.yaml").write_text("n: 3\nm: 5\n", "utf8")
    path = _notebook(folder, "print(n, globals().get('m'))")
    output, errors, failed = run()
    assert not failed and errors == ""
    assert re.fullmatch(rf"Executing {path} \(2 cells\)\nExecuted {path} in \d+ s\n", output)
    assert nbformat.read(folder / "out" / "01_uno.ipynb", 4).cells[-1].outputs[0].text == "3 None\n"
    assert _names(folder) == ["01_uno.ipynb"]


@pytest.mark.parametrize("profile, message", [
    ("nn: 3\n", "no notebook has the parameter nn"), ("- n\n", "must hold")])
def test_a_wrong_profile_stops_before_anything_runs(folder, run, profile, message):
    _notebook(folder, "1 + 1")
    (folder / "mine.yaml").write_text(profile, "utf8")
    output, errors, failed = run()
    assert failed and message in errors and len(errors.splitlines()) == 1
    assert output == "" and not (folder / "out").exists()


PROSE = """from helpers.report import prose
from helpers.report.claims.record import Claim, chapters
chapters()["99"] = {"one": Claim("one", "Casi todo es cero", "n > 5", "n vale {{ n }}"),
                    "two": Claim("two", "Hay uno", "n > 0", "hay {{ n }}")}
prose.install()"""


def test_claims_that_do_not_hold_are_told_and_the_source_of_prose_is_hidden(folder, run):
    path = _notebook(folder, PROSE, "%%prosa two\nVale {{ n }}.", "%%prosa one\nCasi todo, {{ n }}.",
                     "%%prosa one\nOtra vez.")
    output, errors, failed = run()
    assert not failed and errors == ""
    assert re.fullmatch(rf"Executing {path} \(5 cells\)\nExecuted {path} in \d+ s\n"
                        "one does not hold here. Published: Casi todo es cero. Found: n vale 3.\n", output)
    executed = nbformat.read(folder / "out" / "01_uno.ipynb", 4).cells
    hidden = [cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in executed]
    assert hidden == [cell.source.startswith("%%prosa") for cell in executed] and sum(hidden) == 3
    assert executed[3].outputs[0].data["text/markdown"] == "Vale 3."


def test_a_failure_says_its_message_first_and_last_and_the_traceback_in_its_file(folder, run):
    path = _notebook(folder, "raise ValueError('n must be small')")
    (folder / "out").mkdir()
    (folder / "out" / "01_uno.ipynb").write_text("of an earlier run", "utf8")
    left = folder / "out" / "01_uno.failed.ipynb"
    _, errors, failed = run()
    assert failed and errors.splitlines() == [
        f"{path} failed: ValueError: n must be small", f"Its traceback is in {left}",
        "ValueError: n must be small"]
    assert _names(folder) == ["01_uno.failed.ipynb"]
    assert any(output.output_type == "error" for cell in nbformat.read(left, 4).cells
               for output in cell.get("outputs", ()))
    _notebook(folder, "1 + 1")
    assert not run()[-1] and _names(folder) == ["01_uno.ipynb"]  # mended: its traceback goes


def test_a_kernel_that_dies_or_ends_leaves_no_whole_notebook(folder, run):
    for source, message, kept in [
            ("import os\nos._exit(1)", "its kernel died", "What was executed before"),
            ("import sys\nsys.exit()", "01_uno.ipynb has a cell that failed, cell 3", "Its traceback")]:
        _notebook(folder, source, "2 + 2")
        _, errors, failed = run()
        assert failed and message in errors and f"\n{kept} is in " in errors
        assert _names(folder) == ["01_uno.failed.ipynb"]


def test_a_file_cut_by_a_full_disk_is_not_said_to_hold_a_traceback(folder, monkeypatch):
    path = _notebook(folder, "1 + 1")

    def full(notebook, partial, *_, **__):
        partial.write_text('{"cells": [{"cell_ty', "utf8")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(execute.papermill, "execute_notebook", full)
    with pytest.raises(execute.Failure) as caught:
        execute.execute(folder / "mine.yaml", path, folder / "out" / "01_uno.ipynb")
    message, where = caught.value.args
    assert message == f"there is no space left on the disk of {folder / 'out'}: free some and run again"
    assert where == "" and _names(folder) == [] and not list((folder / "out").glob(".*.part.ipynb"))


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(paths.ROOT)}
SLOW = """import os, time
with open("ran", "a") as file: file.write("once ")
while not os.path.exists("go"): time.sleep(0.1)"""


def test_the_second_waits_and_is_content(folder):
    _notebook(folder, SLOW)
    first = _started(folder)
    second = subprocess.Popen(_command(folder), stdout=subprocess.PIPE, text=True, cwd=folder,
                              env=ENVIRONMENT)
    assert f"is being made by process {first.pid}: waiting" in second.stdout.readline()
    (folder / "go").touch()
    assert first.wait() == 0
    assert second.communicate()[0] == "" and second.returncode == 0
    assert (folder / "ran").read_text() == "once "  # by the first alone


def test_one_that_was_killed_holds_nothing_and_leaves_nothing(folder, run):
    _notebook(folder, SLOW)
    first = _started(folder)
    first.kill()
    first.wait()
    _notebook(folder, "1 + 1")
    output, _, failed = run()
    assert not failed and "waiting" not in output
    assert not list((folder / "out").glob(".*.part.ipynb")) and _names(folder) == ["01_uno.ipynb"]


def _started(folder):
    """Start the execution of a notebook that writes the file `ran`; return its process when it has."""
    process = subprocess.Popen(_command(folder), stdout=subprocess.DEVNULL, cwd=folder, env=ENVIRONMENT)
    while not (folder / "ran").exists():
        assert process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("command", ["helpers.report.execute", "papermill"])
def test_a_terminal_shows_the_bars_of_a_cell(folder, command):
    _notebook(folder, BARS)
    words = _command(folder) if command == "helpers.report.execute" else [
        sys.executable, "-m", "papermill", "-k", "python3", "-p", "n", "3", _arguments(folder)[1],
        folder / "a.ipynb"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # its rows and columns
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, cwd=paths.ROOT, env=environment) as process:
        os.close(theirs)
        shown = b""
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # of a terminal that was closed at its other end
                break
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"\r(01_uno|Executing): +\d+%", shown), shown
    assert re.search(rb"\n\r\x1b\[Kwork: +\d+%[^\n]*/3 \[[^\n]*\x1b\[A\r", shown), shown


def test_a_log_has_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "_last", 0)
    log = progress.Log()
    for i in range(6):
        log.write(f"\rwork:  {i}0%|\u2588   | {i}/9 [00:01<00:02]   ")
    log.write("\n")
    assert capsys.readouterr().err.splitlines() == ["work:  20% 2/9 [00:01<00:02]",
                                                    "work:  40% 4/9 [00:01<00:02]"]
