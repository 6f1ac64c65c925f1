"""Sweeps: nothing lost, nothing twice, failures told; a worker killed in the middle; notebooks on a grid."""
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from distributed import Client

from helpers import store, sweeps
from helpers.sweeps import Job

WORK = """
import os, time
import numpy as np

def square(number, folder, wait=0.0):
    "Note in a file that it began, then that it finished."
    note = lambda what: open(os.path.join(folder, f"{what}-{number}-{os.getpid()}-{time.time_ns()}"), "w").close()
    note("began")
    time.sleep(wait)
    if number == 13:
        raise ZeroDivisionError("thirteen cannot be done")
    note("finished")
    return {"square": np.array(number**2)}
"""


@pytest.fixture
def square(tmp_path, monkeypatch):
    """A function in a module that workers can import, and the folder where it says what it does."""
    (tmp_path / "sweep_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(store.ROOT)]))
    folder = tmp_path / "said"
    folder.mkdir()
    import sweep_work
    yield sweep_work.square, folder
    del sys.modules["sweep_work"]


def _jobs(square, folder, numbers, **more):
    return [Job("square", square, {"number": number, "folder": str(folder), **more}) for number in numbers]


def _said(folder, what):
    return [path.name.split("-")[1] for path in folder.glob(f"{what}-*")]


def test_every_job_is_an_artifact_and_runs_once(made, square):
    square, folder = square
    before = dict(os.environ)
    first = sweeps.run(_jobs(square, folder, range(3)), workers=2)
    assert dict(os.environ) == before  # the workers' own is not left here
    assert [int(value["square"]) for value in first] == [0, 1, 4]
    assert len(list(made.glob("square-*.npz"))) == 3
    again = sweeps.run(_jobs(square, folder, range(5)), workers=2)
    assert [int(value["square"]) for value in again] == [0, 1, 4, 9, 16]
    assert sorted(_said(folder, "began")) == ["0", "1", "2", "3", "4"]


def test_a_failed_job_is_told_and_takes_no_other_along(made, square, capsys):
    square, folder = square
    with pytest.raises(RuntimeError, match="1 of 3 jobs failed"):
        sweeps.run(_jobs(square, folder, [1, 13, 2]), workers=1)
    out = capsys.readouterr()
    assert "thirteen cannot be done" in out.out + out.err and "sweep_work.py" in out.out + out.err
    assert len(list(made.glob("square-*.npz"))) == 2
    with pytest.raises(RuntimeError, match="1 of 1 jobs failed"):  # those that finished are not run again
        sweeps.run(_jobs(square, folder, [1, 13, 2]), workers=1)


def _cluster(folder):
    """Start a scheduler and two workers on loopback; return (address, their processes)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    log = open(folder / "cluster.log", "w")
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"], [sys.executable, "-m", "distributed.cli.dask_worker"]
    scheduler = subprocess.Popen([*dask[0], "--host", "127.0.0.1", "--port", address.rpartition(":")[2],
                                  "--no-dashboard", "--dashboard-address", "127.0.0.1:0"], stdout=log, stderr=log)
    workers = [subprocess.Popen([*dask[1], address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                                 "--local-directory", str(folder / f"worker{i}")], stdout=log, stderr=log)
               for i in range(2)]
    return address, [scheduler, *workers]


def test_a_killed_worker_s_job_runs_elsewhere_and_nothing_finished_runs_twice(made, square, tmp_path):
    square, folder = square
    address, processes = _cluster(tmp_path)
    try:
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        killer = subprocess.Popen([sys.executable, "-c", f"""
import os, signal, time
from pathlib import Path
folder, pid = Path({str(folder)!r}), {processes[1].pid}
while True:  # in the middle: it has finished a job and is at another
    done = {{p.name.split("-")[1] for p in folder.glob(f"finished-*-{{pid}}-*")}}
    begun = {{p.name.split("-")[1] for p in folder.glob(f"began-*-{{pid}}-*")}}
    if done and begun - done:
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        break
    time.sleep(0.01)
"""])
        values = sweeps.run(_jobs(square, folder, range(10, 13), wait=1.0) + _jobs(square, folder, range(14, 19), wait=1.0),
                            scheduler=address)
        processes.append(killer)
        assert killer.wait(10) == 0 and processes[1].wait(10) == -signal.SIGKILL
    finally:
        for process in processes:
            process.kill()
            process.wait()
    numbers = [*range(10, 13), *range(14, 19)]
    assert [int(value["square"]) for value in values] == [n**2 for n in numbers]
    kept = sorted(_said(folder, "finished"))
    assert kept == sorted(map(str, numbers))              # every one finished, and once
    assert len(_said(folder, "began")) == len(numbers) + 1  # the one that was killed began twice


def test_no_scheduler_is_said_at_once(made, square):
    square, folder = square
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        sweeps.run(_jobs(square, folder, [1]), scheduler="tcp://127.0.0.1:1")


def _notebook(path):
    cells = [nbformat.v4.new_code_cell("a = 1\nb = 'x'", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("assert a != 3\nprint(a, b)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}}), path)
    return path


def test_a_notebook_over_a_grid_is_named_by_its_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "FOLDER", tmp_path / "sweep")
    path = _notebook(tmp_path / "little.ipynb")
    results = sweeps.notebooks(path, {"a": [1, 2], "b": ["y"]}, workers=2)
    assert [result.name.rpartition("-")[0] for result in results] == ["little-a=1-b=y", "little-a=2-b=y"]
    printed = [cell.outputs[0].text for result in results
               for cell in nbformat.read(result, 4).cells if cell.cell_type == "code" and cell.outputs]
    assert printed == ["1 y\n", "2 y\n"]
    times = [result.stat().st_mtime_ns for result in results]
    with pytest.raises(RuntimeError, match="1 of 1 jobs failed"):
        sweeps.notebooks(path, {"a": [1, 2, 3], "b": ["y"]}, workers=1)
    assert [result.stat().st_mtime_ns for result in results] == times  # not run again
    assert len(list(sweeps.FOLDER.iterdir())) == 2                     # nothing half written


@pytest.mark.parametrize("grid, message", [
    ({"c": [1]}, "has no parameter c; it has a, b"), ({"a": 1}, "a list of at least one value"),
    ({"a": []}, "a list of at least one value"), ({}, "a list of at least one value"),
    (None, "a list of at least one value")])
def test_a_grid_that_does_not_fit_is_refused(tmp_path, grid, message):
    with pytest.raises(ValueError, match=message):
        sweeps.notebooks(_notebook(tmp_path / "little.ipynb"), grid)


def test_the_command_says_what_is_missing(tmp_path):
    run = lambda **given: subprocess.run([sys.executable, "-m", "helpers.sweeps"], capture_output=True, text=True,
                                         cwd=store.ROOT, env={**os.environ, "NOTEBOOK": "", "GRID": "", **given})
    assert "needs NOTEBOOK=" in run().stderr
    assert "not a readable YAML" in run(NOTEBOOK="notebooks/01_datos.ipynb", GRID=str(tmp_path / "no.yaml")).stderr
    grid = Path(tmp_path, "grid.yaml")
    grid.write_text("dataset: [mnist]\n")
    assert "there is no notebook" in run(NOTEBOOK="notebooks/none.ipynb", GRID=str(grid)).stderr
    bad = run(NOTEBOOK="notebooks/01_datos.ipynb", GRID=str(grid), WORKERS="0")
    assert bad.returncode == 1 and "WORKERS must be an integer >= 1, got '0'" in bad.stderr
