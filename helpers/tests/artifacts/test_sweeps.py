"""Sweeps: nothing lost, nothing twice, failures told; a worker killed in the middle; notebooks on a grid."""
import datetime
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import pytest
from distributed import Client

from helpers.artifacts import paths, progress, store, sweeps
from helpers.artifacts.sweeps import Job
from helpers.report import grid, parameters
from helpers.tests import forgery

WORK = """
import os, sys, time
import numpy as np
import pandas as pd

def square(number, folder, wait=0.0):
    "Note in a file that it began, then that it finished."
    def note(what):
        open(os.path.join(folder, f"{what}-{number}-{os.getpid()}-{time.time_ns()}"), "w").close()

    note("began")
    time.sleep(wait)
    if number == 13:
        raise ZeroDivisionError("thirteen cannot be done")
    note("finished")
    return {"square": np.array(number**2)}

def odd(kind):
    "Return what is no artifact, or do not return."
    return {"nothing": lambda: None, "array": lambda: np.zeros(3),
            "objects": lambda: {"a": np.array([None, 1])},
            "ragged": lambda: {"a": [[1], [1, 2]]}, "lists": lambda: pd.DataFrame({"a": [[1, 2], {}]}),
            "leaves": lambda: sys.exit(3), "disk": lambda: open("/no/such/file"),
            "code": lambda: {"a": lambda: 1},
            "good": lambda: pd.DataFrame({"a": [1.5, None], "b": ["x", ""]})}[kind]()
"""

SWEEP = """
import sys
from pathlib import Path
from helpers.artifacts import paths, sweeps
import sweep_work

if __name__ == "__main__":
    folder, wait = Path(sys.argv[1]), float(sys.argv[2])
    paths.MADE, paths.SHIPPED = folder.parent / "made", folder.parent / "shipped"
    jobs = [sweeps.Job("square", sweep_work.square, {"number": number, "folder": str(folder), "wait": wait})
            for number in range(6)]
    print([int(value["square"]) for value in sweeps.run(jobs, workers=1)])
"""


@pytest.fixture
def square(tmp_path, monkeypatch):
    """A function in a module that workers can import, and the folder where it says what it does."""
    (tmp_path / "sweep_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(paths.ROOT)]))
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
    assert len(list(made.rglob("square-*.npz"))) == 3
    again = sweeps.run(_jobs(square, folder, range(5)), workers=2)
    assert [int(value["square"]) for value in again] == [0, 1, 4, 9, 16]
    assert sorted(_said(folder, "began")) == ["0", "1", "2", "3", "4"]


def test_a_failed_job_is_told_and_takes_no_other_along(made, square, capsys):
    square, folder = square
    with pytest.raises(RuntimeError, match="1 of 3 jobs failed"):
        sweeps.run(_jobs(square, folder, [1, 13, 2]), workers=1)
    out = capsys.readouterr()
    assert "thirteen cannot be done" in out.out + out.err and "sweep_work.py" in out.out + out.err
    assert len(list(made.rglob("square-*.npz"))) == 2
    with pytest.raises(RuntimeError, match="1 of 1 jobs failed"):  # those that finished are not run again
        sweeps.run(_jobs(square, folder, [1, 13, 2]), workers=1)


def test_what_is_no_artifact_is_the_failure_of_its_job_alone(made, square, capsys):
    import sweep_work
    kinds = ["nothing", "array", "objects", "ragged", "lists", "leaves", "disk", "code", "good"]
    jobs = [Job("odd", sweep_work.odd, {"kind": kind}) for kind in kinds]
    with pytest.raises(RuntimeError, match="8 of 9 jobs failed") as raised:
        sweeps.run(jobs, workers=1)
    _, *lines = str(raised.value).splitlines()
    assert sorted(line.partition(": ")[2].partition("}")[0]
                  for line in lines) == sorted(map(repr, kinds[:-1]))
    assert "got NoneType" in str(raised.value) and "No such file" in str(raised.value)
    assert {path.name for path in forgery.kept_files(made)} == {
        f"odd-{store.digest({'kind': 'good'})}.csv{end}" for end in ("", ".json")}
    good, = sweeps.run(jobs[-1:])
    assert good["b"].tolist()[0] == "x"
    for job in jobs[:-1]:
        assert not store.has(job.name, job.parameters)


def _cluster(folder, count=2):
    """Start a scheduler and workers on loopback; return (address, their processes)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    log = open(folder / "cluster.log", "w")
    dask = ([sys.executable, "-m", "distributed.cli.dask_scheduler"],
            [sys.executable, "-m", "distributed.cli.dask_worker"])
    scheduler = subprocess.Popen([*dask[0], "--host", "127.0.0.1", "--port", address.rpartition(":")[2],
                                  "--no-dashboard", "--dashboard-address", "127.0.0.1:0"], stdout=log,
                                 stderr=log)
    workers = [subprocess.Popen([*dask[1], address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                                 "--local-directory", str(folder / f"worker{i}")], stdout=log, stderr=log)
               for i in range(count)]
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
        values = sweeps.run([*_jobs(square, folder, range(10, 13), wait=1.0),
                             *_jobs(square, folder, range(14, 19), wait=1.0)], scheduler=address)
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


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://no.such.host.invalid:8786",
                                     "http://127.0.0.1:1", "tcp://127.0.0.1", "a name"])
def test_no_scheduler_is_said_at_once(address, made, square):
    square, folder = square
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at '{address}'"):
        sweeps.run(_jobs(square, folder, [1]), scheduler=address)


def test_a_scheduler_without_workers_is_said_and_its_end_too(made, square, tmp_path, monkeypatch):
    square, folder = square
    address, (scheduler,) = _cluster(tmp_path, 0)
    said = []
    monkeypatch.setattr(sweeps, "PATIENCE", 0.5)
    monkeypatch.setattr(progress.tqdm, "write", lambda _, text: said.append(text) or scheduler.kill())
    with Client(address, timeout="60s", set_as_default=False):
        pass  # it listens
    try:
        with pytest.raises(RuntimeError, match="the Dask scheduler is gone"):
            sweeps.run(_jobs(square, folder, [1]), scheduler=address)
    finally:
        scheduler.kill()
        scheduler.wait()
    assert "the cluster has had no worker for " in said[0]
    assert not list(forgery.kept_files(made)) and not _said(folder, "began")  # the claim is given back too


def test_workers_that_do_not_live_end_a_cluster_of_one_s_own(monkeypatch):
    said, workers, clock = [], {"a": 1}, [0.0]
    monkeypatch.setattr(sweeps.time, "monotonic", lambda: clock[0])
    slots = sweeps._slots(types.SimpleNamespace(nthreads=lambda: workers), said.append, own=True)
    assert slots() == 1
    workers.clear()
    for clock[0] in (9, 11, 30):
        assert slots() == 1
    assert said == ["the cluster has had no worker for 11 s: waiting for one until 60 s"]
    workers["b"] = 4
    clock[0] = 80
    assert slots() == 4
    workers.clear()
    clock[0] = 139
    assert slots() == 1 and len(said) == 2
    clock[0] = 141
    with pytest.raises(RuntimeError, match="no worker has lived for 60 s"):
        slots()


def _sweep(folder, wait):
    """Start a sweep of six jobs in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", SWEEP, str(folder), str(wait)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def _until(true):
    for _ in range(6000):
        if true():
            return
        time.sleep(0.02)
    raise TimeoutError


def test_two_sweeps_at_once_share_the_jobs(square, tmp_path):
    _, folder = square
    both = [_sweep(folder, 0.5) for _ in range(2)]
    for sweep in both:
        out, error = sweep.communicate(timeout=120)
        assert out.endswith("[0, 1, 4, 9, 16, 25]\n"), error
    assert sorted(_said(folder, "began")) == sorted(map(str, range(6)))
    assert len(forgery.kept_files(tmp_path / "made")) == 12  # artifacts and records, no claim


def test_a_second_sweep_takes_over_what_a_killed_one_had_claimed(square, tmp_path):
    _, folder = square
    made = tmp_path / "made"
    first = _sweep(folder, 1.0)
    _until(lambda: list(made.rglob("*.json")) and list(made.rglob(".*.claim")))
    second = _sweep(folder, 1.0)
    first.kill()
    first.wait()
    done = {path.name for path in made.rglob("*.json")}
    out, error = second.communicate(timeout=120)
    assert out.endswith("[0, 1, 4, 9, 16, 25]\n"), error
    kept = {path.name for path in forgery.kept_files(made)}
    # The killed one may have kept a result and died before it gave the claim back.
    claims = {name for name in kept if name.endswith(".claim")}
    assert len(kept - claims) == 12 and done <= kept and len(claims) <= 1
    began = _said(folder, "began")
    assert set(began) == set(map(str, range(6))) and len(began) <= 8  # twice at most those under way


def test_a_claim_is_held_by_one_and_given_back(tmp_path):
    place = tmp_path / "folder" / "result.ipynb"
    claim = sweeps._claim(place)
    assert claim and sweeps._claim(place) is None and sweeps._claim(tmp_path / "folder" / "other.ipynb")
    other = ("import sys; from pathlib import Path; from helpers.artifacts import sweeps; "
             "sys.exit(sweeps._claim(Path(sys.argv[1])) is None)")
    ask = lambda: subprocess.run([sys.executable, "-c", other, str(place)], cwd=paths.ROOT).returncode
    assert ask() == 1
    sweeps._release(claim)
    assert ask() == 0 and sweeps._claim(place)  # of the dead process, only the file is left


def _notebook(path):
    cells = [nbformat.v4.new_code_cell("a = 1\nb = 'x'", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("assert a != 3\nprint(a, b)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}}), path)
    return path


def test_a_notebook_over_a_grid_is_named_by_its_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "FOLDER", tmp_path / "sweep")
    path = _notebook(tmp_path / "little.ipynb")
    results = grid.run_notebooks(path, {"a": [1, 2], "b": ["y"]}, workers=2)
    assert [result.name.rpartition("-")[0] for result in results] == ["little-a=1-b=y", "little-a=2-b=y"]
    printed = [cell.outputs[0].text for result in results
               for cell in nbformat.read(result, 4).cells if cell.cell_type == "code" and cell.outputs]
    assert printed == ["1 y\n", "2 y\n"]
    times = [result.stat().st_mtime_ns for result in results]
    with pytest.raises(RuntimeError, match="1 of 1 jobs failed"):
        grid.run_notebooks(path, {"a": [1, 2, 3], "b": ["y"]}, workers=1)
    assert [result.stat().st_mtime_ns for result in results] == times  # not run again
    assert len(list(grid.FOLDER.iterdir())) == 2                     # nothing half written


@pytest.mark.parametrize("values, message", [
    ({"c": [1]}, "has no parameter c; it has a, b"), ({"a": 1}, "a list of at least one value"),
    ({"a": []}, "a list of at least one value"), ({}, "a list of at least one value"),
    (None, "a list of at least one value"), ({"a": [float("nan")]}, "a grid must hold numbers"),
    ({"a": [datetime.date(2026, 1, 1)]}, "a grid must hold numbers"),
    ({"bb": [1]}, r"has no parameter bb .did you mean b\?.")])
def test_a_grid_that_does_not_fit_is_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        grid.run_notebooks(_notebook(tmp_path / "little.ipynb"), values)


def test_a_point_that_the_notebook_would_refuse_is_refused_before_any_runs():
    for values, message in (({"epochs": [1, 2, -1]}, "epochs must be .*got -1"),
                            ({"n_test": [10, 10_001]}, "n_test must be"),
                            ({"seed": [0, True]}, "seed must be")):
        with pytest.raises(ValueError, match=message):
            grid.run_notebooks(parameters.NOTEBOOKS / "01_datos.ipynb", values)


def test_the_command_says_what_is_missing(tmp_path):
    run = lambda **given: subprocess.run(
        [sys.executable, "-m", "helpers.report.grid"], capture_output=True, text=True, cwd=paths.ROOT,
        env={**os.environ, "NOTEBOOK": "", "GRID": "", **given})
    assert "needs NOTEBOOK=" in run().stderr
    assert "not a readable YAML" in run(NOTEBOOK="notebooks/01_datos.ipynb",
                                        GRID=str(tmp_path / "no.yaml")).stderr
    file = Path(tmp_path, "grid.yaml")
    file.write_text("dataset: [mnist]\n")
    assert "there is no notebook" in run(NOTEBOOK="notebooks/none.ipynb", GRID=str(file)).stderr
    bad = run(NOTEBOOK="notebooks/01_datos.ipynb", GRID=str(file), WORKERS="0")
    assert bad.returncode == 1 and "WORKERS must be an integer >= 1, got '0'" in bad.stderr
