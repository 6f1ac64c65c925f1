"""Many jobs, on this machine or on many: `make sweep`.

A sweep is a list of jobs run through Dask: by workers of this machine, or by those of a cluster whose
scheduler listens at an address. What a job returns becomes an artifact as soon as it has finished, so
that a sweep which is killed goes on where it was, and the same sweep twice runs nothing. Two at once
share the jobs: each is claimed by the one that runs it, and what a dead sweep had claimed is free. The
workers need this project and its data, but no folder in common. Dask's messages are pickles: use a
scheduler that you trust.
"""
import contextlib
import errno
import fcntl
import functools
import os
import textwrap
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import dask
from distributed import Client, LocalCluster, as_completed
from distributed.comm import resolve_address

from helpers.artifacts import paths, store
from helpers.artifacts.progress import tqdm

GIGABYTES = 3  # of memory that a worker with TensorFlow may need
PATIENCE = 10  # seconds without a worker after which it is said, and again after ten times as long
GIVEN_UP = 60  # seconds without a worker after which a cluster of this machine is, for nobody else starts one


class Job(NamedTuple):
    """One piece of work: function(**parameters), kept as the artifact `name` of these parameters.

    function: public, of a module that the workers have; returns a DataFrame or a dict of arrays.
    parameters: what JSON can hold. check(parameters, value): raises where a loaded value does not hold;
    sized: as of store.cached.
    """
    name: str
    function: Callable
    parameters: dict
    check: Callable | None = None
    sized: tuple | None = None


def run(jobs, *, scheduler=None, workers=None, threads=1):
    """Run those jobs whose artifacts are not there; return the values of all, in their order.

    scheduler: the address of a Dask scheduler, "tcp://host:8786"; None, this machine, with `workers`
    processes (None: one a core, as far as memory goes) of `threads` threads each. A worker that dies
    has its job run again by another. A cluster without workers is waited for, which is said; one of
    this machine for GIVEN_UP seconds. Raises RuntimeError, after all other jobs, where some failed: of
    themselves, or since what they returned is no such value; what has finished is kept.
    """
    jobs = list(jobs)
    places = {paths.place(paths.MADE, f"{job.name}-{store.digest(job.parameters)}"): job for job in jobs}

    def done(place):
        return store.has(places[place].name, places[place].parameters, sized=places[place].sized)

    def keep(place, value, seconds):
        store.keep(places[place].name, places[place].parameters, value, seconds)

    run_places(places, done, keep, scheduler, workers, threads)
    return [store.cached(job.name, job.parameters, lambda: None, sized=job.sized,
                         check=job.check and functools.partial(job.check, job.parameters)) for job in jobs]


def local_workers(threads=1):
    """Return how many workers this machine bears: one for so many cores, and for GIGABYTES of memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores // threads, int(memory // GIGABYTES)))


def run_places(jobs, done, keep, scheduler, workers, threads):
    """Run those of {place of the result: job} that are not done(place).

    keep(place, value, seconds): called for each as it finishes. Shows progress and failures. Raises
    RuntimeError at the end, naming the jobs that failed.
    """
    left, failed = {place: job for place, job in jobs.items() if not done(place)}, []
    if not left:
        return
    with _client(scheduler, workers, threads, len(left)) as client, \
            tqdm(total=len(left), desc="jobs", unit="job", smoothing=0) as bar, \
            contextlib.closing(_finished(client, left, done, bar, not scheduler)) as finished:
        for place, future in finished:
            value, error = _outcome(future)
            try:
                if not error:
                    keep(place, *value)
            except ValueError as refused:
                error = refused.with_traceback(None)  # which is not the job's
                error.__cause__ = None
            if error:
                name, last = _named(jobs[place]), traceback.format_exception_only(error)[-1]
                failed.append(f"{name}: {last.splitlines()[0]}")
                bar.write(f"{name} failed:\n{''.join(traceback.format_exception(error)).rstrip()}")
            bar.update()
    if failed:
        raise RuntimeError(f"{len(failed)} of {bar.total} jobs failed (their tracebacks are above); what has "
                           "finished is kept, and another run goes on from it:\n" + "\n".join(failed))


def _finished(client, left, done, bar, own):
    """Yield (place, future) of jobs as they finish; those that another sweep has done only count in the bar.

    left: dict of place to job. own: whether the cluster is of this process alone.
    """
    claims, running, ready = {}, {}, as_completed(loop=client.loop)
    slots, again, told = _slots(client, bar.write, own), 0, False
    try:
        while left or running:
            if time.monotonic() >= again:
                again = time.monotonic() + 1
                bar.update(_start(client, left, done, claims, running, ready, slots()))
                if left and not running and not told:
                    bar.write(f"another sweep runs {len(left)} of these jobs: waiting for it")
                    told = True
            for future in ready.next_batch(block=False):
                place, job = running.pop(future)
                if future.status == "lost":  # its worker died with what it had just returned
                    left[place] = job
                elif future.status in ("finished", "error"):
                    yield place, future
                else:
                    raise RuntimeError("the Dask scheduler is gone; what has finished is kept")
                again = 0
                future.release()
                _release(claims.pop(place))
            time.sleep(0.02 if again else 0)
    finally:
        for claim in claims.values():
            _release(claim)


def _start(client, left, done, claims, running, ready, slots):
    """Claim and submit jobs until `slots` run; return how many another sweep has done meanwhile.

    Few at a time, so that sweeps at once share the jobs.
    """
    count = 0
    for place in list(left):
        if len(running) >= slots:
            break
        claim = _claim(place)
        if not claim:
            continue
        claims[place], job = claim, left.pop(place)
        if done(place):
            _release(claims.pop(place))
            count += 1
            continue
        future = client.submit(_timed, job.function, job.parameters, pure=False)
        running[future] = place, job
        ready.add(future)
    return count


def _slots(client, say, own):
    """Return a function that gives how many jobs the cluster takes at a time, and tells if none works."""
    seen = told = time.monotonic()

    def slots():
        nonlocal seen, told
        try:
            threads, now = sum(client.nthreads().values()), time.monotonic()
        except OSError as error:
            raise RuntimeError(f"the Dask scheduler is gone ({error}); what has finished is kept") from error
        if threads:
            seen = told = now
        elif own and now - seen > GIVEN_UP:
            raise RuntimeError(f"no worker has lived for {GIVEN_UP} s; what has finished is kept")
        elif now - told > PATIENCE * (1 if told == seen else 10):
            told = now
            say(f"the cluster has had no worker for {now - seen:.0f} s: waiting for one "
                + (f"until {GIVEN_UP} s" if own else "(Ctrl-C ends this; what has finished is kept)"))
        return max(1, threads)  # none waits on a worker that another job may kill

    return slots


def _claim(place):
    """Return the lock of a file beside a result, None where another sweep that lives holds it."""
    path = place.with_name(f".{place.name}.claim")
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = open(path, "w")
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(claim.fileno()), os.stat(path)):
            return claim
    except (BlockingIOError, FileNotFoundError):  # held, or taken away by its holder a moment ago
        pass
    except OSError as error:
        # On a file system without locks it goes on as if alone.
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            return claim
        raise
    claim.close()
    return None


def _release(claim):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(claim.name)
    claim.close()


def _outcome(future):
    """Return (what the job returned, None), or (None, what it raised, with the worker's traceback)."""
    try:
        return future.result(), None
    except Exception as error:  # whatever it is, it takes no other job along
        return None, error.with_traceback(future.traceback())


def _named(job):
    return f"{job.name} of {textwrap.shorten(str(job.parameters), 300)}"


def _timed(function, parameters):
    start = time.perf_counter()
    try:
        return function(**parameters), time.perf_counter() - start
    except SystemExit as error:  # which would end the worker, and be tried again by the next
        raise RuntimeError(f"the job left by SystemExit({error.code!r})") from error


@contextlib.contextmanager
def _client(scheduler, workers, threads, jobs):
    """Yield a client of the cluster at this address, or of one made here for as long as it is needed."""
    if scheduler:
        try:
            # A Client would hold on to an address that is none, 20 s at the end too.
            resolve_address(scheduler)
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
                _local(min(jobs, workers or local_workers(threads))) as cluster, \
                Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        os.environ.clear()
        os.environ.update(before)


def _local(workers):
    """Return a cluster of this machine.

    Its log is silent: what fails in jobs and workers, `run_places` says.
    """
    try:
        return LocalCluster(n_workers=workers, threads_per_worker=1, processes=True,
                            dashboard_address="127.0.0.1:0", silence_logs="CRITICAL")
    except RuntimeError as error:
        raise RuntimeError(f"no worker starts on this machine ({error}): "
                           "does `import helpers` work in a new Python?") from error


def where():
    """Return the scheduler and the number of workers that the environment asks for: SCHEDULER, WORKERS."""
    workers = os.environ.get("WORKERS") or None
    if workers and not (workers.isdecimal() and int(workers)):
        raise ValueError(f"WORKERS must be an integer >= 1, got {workers!r}")
    return {"scheduler": os.environ.get("SCHEDULER") or None, "workers": workers and int(workers)}
