"""`make bench`: measures what is not kept yet and prints the table.

From the environment, or after `make bench`, all optional: CELLS="mnist-*-pgd-* *-targeted", patterns
of the cells' names; N=8 REPEATS=1, instead of the usual numbers of images and of calls. To measure
again, delete the bench* of data/made and data/shipped.
"""
import os
from fnmatch import fnmatch

from helpers.bench import measure, table


def main():
    """Run the benchmark as the environment says; exit with a message where that makes no sense."""
    patterns = os.environ.get("CELLS", "").split() or ["*"]
    cells = [cell for cell in measure.CELLS if any(fnmatch(cell.name, p) for p in patterns)]
    if not cells:
        names = "\n  ".join(cell.name for cell in measure.CELLS)
        raise SystemExit(f"CELLS={' '.join(patterns)} matches none of:\n  {names}")
    print(table.text(table.benchmark(cells, _count("N"), _count("REPEATS"))))


def _count(name):
    text = os.environ.get(name, "")
    if text and not (text.isdecimal() and int(text)):
        raise SystemExit(f"{name} must be an integer >= 1, got {text!r}")
    return int(text) if text else None


if __name__ == "__main__":
    main()
