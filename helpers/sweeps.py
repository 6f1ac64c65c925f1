"""Many jobs, on this machine or on many: `make sweep`.

A sweep is a list of jobs run through Dask: by workers of this machine, or by those of a cluster whose
scheduler listens at an address. What a job returns becomes an artifact as soon as it has finished, so
that a sweep which is killed goes on where it was, and the same sweep twice runs nothing. The workers
need this project and its data, but no folder in common. Dask's messages are pickles: use a scheduler
that you trust.
"""
import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import dask
import papermill
import yaml
from distributed import Client, LocalCluster, as_completed
from tqdm.auto import tqdm

from helpers import store

GIGABYTES = 3  # of memory that a worker with TensorFlow may need
FOLDER = store.ROOT / "notebooks" / "executed" / "sweep"


class Job(NamedTuple):
    """One piece of work: function(**parameters), kept as the artifact `name` of these parameters.

    function: public, of a module that the workers have; returns a DataFrame or a dict of arrays.
    parameters: what JSON can hold.
    """
    name: str
    function: Callable
    parameters: dict


def run(jobs, *, scheduler=None, workers=None, threads=1):
    """Run those jobs whose artifacts are not there; return the values of all, in their order.

    scheduler: the address of a Dask scheduler, "tcp://host:8786"; None, this machine, with `workers`
    processes (None: one a core, as far as memory goes) of `threads` threads each. A worker that dies
    has its job run again by another. Raises RuntimeError, after all other jobs, where some failed;
    what has finished is kept.
    """
    jobs = list(jobs)
    missing = {(job.name, store.digest(job.parameters)): job for job in jobs
               if not store.has(job.name, job.parameters)}
    _run(list(missing.values()), _keep, scheduler, workers, threads)
    return [store.cached(job.name, job.parameters, lambda: None) for job in jobs]


def notebooks(path, grid, *, scheduler=None, workers=None, threads=1):
    """Execute a notebook once for each point of a grid; return the paths of what was executed.

    grid: dict from a parameter to the list of its values; all combinations are run. The results lie in
    notebooks/executed/sweep, named by their parameters; those there are not run again, unless they are
    older than the notebook. Raises ValueError for a parameter that the notebook does not have.
    """
    path = Path(path)
    points = grid_points(path, grid)
    jobs = {target(path, point): Job(path.stem, execute, {"path": os.path.relpath(path, store.ROOT),
                                                          "parameters": point}) for point in points}

    def keep(job, text, seconds):
        with store.atomic(target(path, job.parameters["parameters"])) as partial:
            partial.write_text(text, "utf8")

    oldest = max(path.stat().st_mtime, store.fresh_since())
    _run([job for result, job in jobs.items() if not (result.exists() and result.stat().st_mtime > oldest)],
         keep, scheduler, workers, threads)
    return list(jobs)


def grid_points(path, grid):
    """Return the points of a grid, a list of dicts; raise ValueError where it does not fit the notebook."""
    if not path.exists():
        raise ValueError(f"there is no notebook {path}")
    known = papermill.inspect_notebook(str(path))
    if not (isinstance(grid, dict) and grid and all(isinstance(v, list) and v for v in grid.values())):
        raise ValueError(f"a grid must give each parameter a list of at least one value, got {grid!r}")
    unknown = [name for name in grid if name not in known]
    if unknown:
        raise ValueError(f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def target(path, point):
    """Return where the notebook executed with these parameters lies."""
    words = "-".join(f"{name}={re.sub(r'[^A-Za-z0-9._]+', '_', str(value))}" for name, value in point.items())
    return FOLDER / f"{path.stem}-{words[:100]}-{store.digest(point)}.ipynb"


def execute(path, parameters):
    """Execute the notebook at `path`, relative to the project, with papermill; return its text.

    Raises RuntimeError, with papermill's last words, where it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "parameters.yaml"), Path(folder, "executed.ipynb")
        given.write_text(yaml.safe_dump(parameters), "utf8")
        done = subprocess.run([sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar",
                               "-f", given, store.ROOT / path, result],
                              cwd=store.ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{path} failed with {parameters}:\n{done.stderr[-3000:]}")
        return result.read_text("utf8")


def local_workers(threads=1):
    """Return how many workers this machine bears: one for so many cores, and for GIGABYTES of memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores // threads, int(memory // GIGABYTES)))


def _run(jobs, keep, scheduler, workers, threads):
    """Run the jobs; keep(job, value, seconds) each as it finishes. Shows progress and failures."""
    if not jobs:
        return
    failed = []
    with _client(scheduler, workers, threads, len(jobs)) as client, \
            tqdm(total=len(jobs), desc="jobs", unit="job", smoothing=0) as bar:
        futures = {client.submit(_timed, job.function, job.parameters, pure=False): job for job in jobs}
        for future in as_completed(list(futures), loop=client.loop):
            job = futures.pop(future)
            if future.status == "finished":
                keep(job, *future.result())
            else:
                failed.append(job)
                bar.write(f"{job.name} failed with {job.parameters}:\n{_reason(future)}")
            future.release()
            bar.update()
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(jobs)} jobs failed (their tracebacks are above); "
                           "what has finished is kept, and another run goes on from it")


def _reason(future):
    error = future.exception()
    return "".join(traceback.format_exception(type(error), error, future.traceback())).rstrip()


def _timed(function, parameters):
    start = time.perf_counter()
    return function(**parameters), time.perf_counter() - start


def _keep(job, value, seconds):
    store.keep(job.name, job.parameters, value, seconds)


@contextlib.contextmanager
def _client(scheduler, workers, threads, jobs):
    """Yield a client of the cluster at this address, or of one made here for as long as it is needed."""
    if scheduler:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
        with client:
            yield client
        return
    environment = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTEROP_THREADS": "1",
                   "TF_NUM_INTRAOP_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    before = dict(os.environ)  # Dask leaves its workers' environment in this process too
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}), \
                LocalCluster(n_workers=min(jobs, workers or local_workers(threads)), threads_per_worker=1,
                             processes=True, dashboard_address="127.0.0.1:0", silence_logs="ERROR") as cluster, \
                Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        os.environ.clear()
        os.environ.update(before)


def main():
    """Run `make sweep` as the environment says: NOTEBOOK over GRID, both files; SCHEDULER, WORKERS."""
    path, grid = (os.environ.get(name) for name in ("NOTEBOOK", "GRID"))
    if not (path and grid):
        raise ValueError("a sweep needs NOTEBOOK=notebooks/….ipynb and GRID=….yaml, "
                         "a list of values for each parameter")
    try:
        points = yaml.safe_load(Path(grid).read_text("utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"GRID={grid} is not a readable YAML file: {error}") from error
    for result in notebooks(path, points, **where()):
        print(os.path.relpath(result))


def where():
    """Return the scheduler and the number of workers that the environment asks for: SCHEDULER, WORKERS."""
    workers = os.environ.get("WORKERS") or None
    if workers and not (workers.isdecimal() and int(workers)):
        raise ValueError(f"WORKERS must be an integer >= 1, got {workers!r}")
    return {"scheduler": os.environ.get("SCHEDULER") or None, "workers": workers and int(workers)}


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"make sweep: {error}")
