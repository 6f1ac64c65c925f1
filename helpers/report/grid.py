"""A notebook executed once for each point of a grid: `make sweep NOTEBOOK=… GRID=…`."""
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from helpers.artifacts import files, paths, store, sweeps
from helpers.report import parameters

FOLDER = paths.ROOT / "notebooks" / "executed" / "sweep"


def run_notebooks(path, grid, *, scheduler=None, workers=None, threads=1):
    """Execute a notebook once for each point of a grid; return the paths of what was executed.

    grid: dict from a parameter to the list of its values; all combinations are run. The results lie in
    notebooks/executed/sweep, named by their parameters; those there are not run again, unless they are
    older than the notebook. Raises ValueError for a parameter that the notebook does not have.
    """
    path = Path(path)
    known = os.path.relpath(path, paths.ROOT)
    places = {target(path, point): sweeps.Job(path.stem, run_point, {"path": known, "point": point})
              for point in grid_points(path, grid)}
    oldest = max(path.stat().st_mtime, store.fresh_since())

    def done(place):
        return place.exists() and place.stat().st_mtime > oldest

    def keep(place, text, seconds):
        with files.atomic(place) as partial:
            partial.write_text(text, "utf8")

    sweeps.run_places(places, done, keep, scheduler, workers, threads)
    return list(places)


def grid_points(path, grid):
    """Return the points of a grid, a list of dicts; raise ValueError where the notebook would refuse one."""
    if not path.exists():
        raise ValueError(f"there is no notebook {path}")
    if not (isinstance(grid, dict) and grid and all(isinstance(v, list) and v for v in grid.values())):
        raise ValueError(f"a grid must give each parameter a list of at least one value, got {grid!r}")
    try:
        json.dumps(grid, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError("a grid must hold numbers, texts, true, false, null and "
                         f"lists, got {grid!r}") from error
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for point in points:
        parameters.check_given(path, point)
    return points


def target(path, point):
    """Return where the notebook executed with these parameters lies."""
    words = "-".join(f"{name}={re.sub(r'[^A-Za-z0-9._]+', '_', str(value))}" for name, value in point.items())
    return FOLDER / f"{path.stem}-{words[:100]}-{store.digest(point)}.ipynb"


def run_point(path, point):
    """Execute the notebook at `path`, relative to the project, at one point of a grid; return its text.

    Raises RuntimeError where it fails: papermill's last line first, then those before.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "parameters.yaml"), Path(folder, "executed.ipynb")
        given.write_text(yaml.safe_dump(point), "utf8")
        done = subprocess.run([sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar",
                               "-f", given, paths.ROOT / path, result],
                              cwd=paths.ROOT, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.rstrip()[-3000:]
            raise RuntimeError(f"{said.rpartition(chr(10))[2]} ({path} with {point})\n{said}")
        return result.read_text("utf8")


def main():
    """Run `make sweep` as the environment says: NOTEBOOK over GRID, both files; SCHEDULER, WORKERS."""
    path, grid = (os.environ.get(name) for name in ("NOTEBOOK", "GRID"))
    if not (path and grid):
        raise ValueError("a sweep needs NOTEBOOK=notebooks/….ipynb and GRID=….yaml, "
                         "a list of values for each parameter")
    points = parameters.read_yaml(grid)
    for result in run_notebooks(path, points, **sweeps.where()):
        print(os.path.relpath(result))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"make sweep: {error}")
