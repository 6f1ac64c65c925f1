"""A notebook executed with its part of a profile: `python -m helpers.report.execute PROFILE NOTEBOOK OUT`.

Before anything runs, the profile is checked against all notebooks beside it. What was executed appears under
its name only whole; what failed, beside it as NAME.failed.ipynb. One process at a time makes it: another that
wants the same waits, and is content with what the first made.
"""
import contextlib
import errno
import fcntl
import logging
import os
import sys
import time
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers.artifacts import progress
from helpers.report import labels, page, parameters
from helpers.report.claims import reading

logging.getLogger("papermill").setLevel(logging.ERROR)  # it announces files and kernels, as this module does


class Failure(Exception):
    """An execution that failed: the message alone, and where to read on."""


def execute(profile, notebook, executed):
    """Execute a notebook with its own parameters of a profile, and leave it at `executed`.

    Raises ValueError where the profile does not fit the notebooks, and Failure where the notebook fails.
    """
    notebook, executed = Path(notebook), Path(executed)
    sharing = {*Path(profile).parent.glob("[0-9]*.ipynb"), notebook}
    given = parameters.of_profile(Path(profile), sorted(sharing))[notebook.stem]
    executed.parent.mkdir(parents=True, exist_ok=True)
    with _alone(executed) as waited:
        if not (waited and executed.exists()):
            _clear(executed)
            _run(notebook, executed, given)


@contextlib.contextmanager
def _alone(executed):
    """Hold the lock of an executed notebook till this process ends; yield whether another held it before."""
    with open(executed.with_name(f".{executed.stem}.lock"), "a+", encoding="utf8") as file:
        waited = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            file.seek(0)
            _say(f"{executed} is being made by process {file.read().strip()}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield waited


def _clear(executed):
    """Delete an earlier result, and what processes that were killed left of theirs."""
    for path in (executed, _failed(executed), *executed.parent.glob(f".{executed.stem}.*.part.ipynb")):
        path.unlink(missing_ok=True)


def _failed(executed):
    return executed.with_suffix(".failed.ipynb")


def _run(notebook, executed, given):
    partial = executed.with_name(f".{executed.stem}.{os.getpid()}.part.ipynb")
    cells, start = len(nbformat.read(notebook, 4).cells), time.monotonic()
    _say(f"Executing {notebook} ({cells} cells)")
    try:
        papermill.execute_notebook(
            notebook, partial, given, kernel_name="python3", start_timeout=300,
            progress_bar={"desc": notebook.stem, "file": progress.stream(), "leave": False})
        made = page.ran(nbformat.read(partial, 4), notebook.name)  # a cell may have ended the kernel
        nbformat.write(_folded(made), partial)
        os.replace(partial, executed)
    except (PapermillExecutionError, ValueError, OSError, RuntimeError, KeyboardInterrupt) as error:
        raise Failure(_reason(error, executed), _keep(partial, executed)) from error
    _say(f"Executed {notebook} in {_clock(time.monotonic() - start)}")
    for line in reading.broken(made):
        _say(line)


def _folded(notebook):
    """Return the notebook with the source of its prose hidden in JupyterLab, which shows what it says."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and labels.is_prose(cell):
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
    return notebook


def _reason(error, executed):
    """Return in a line why a notebook failed."""
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {error.evalue}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"there is no space left on the disk of {executed.parent}: free some and run again"
    if isinstance(error, DeadKernelError):
        return "its kernel died: of too little memory, or since a cell ended it"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) or type(error).__name__


def _keep(partial, executed):
    """Keep what was executed before the failure, if it can be read; return a sentence on what it holds."""
    try:
        cells = nbformat.read(partial, 4).cells
    except (OSError, ValueError, nbformat.ValidationError):  # not begun, or cut short as on a full disk
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        return ""
    os.replace(partial, _failed(executed))
    errors = any(output.output_type == "error" for cell in cells for output in cell.get("outputs", ()))
    return f"{'Its traceback' if errors else 'What was executed before'} is in {_failed(executed)}"


def _clock(seconds):
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def _say(text):
    print(text, flush=True)


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: python -m helpers.report.execute PROFILE.yaml NOTEBOOK.ipynb EXECUTED.ipynb")
    try:
        execute(*sys.argv[1:])
    except Failure as error:
        message, where = error.args
        sys.exit("\n".join(filter(None, [f"{sys.argv[2]} failed: {message}", where, message])))
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[2]} was not executed: {error}")


if __name__ == "__main__":
    main()
