"""Where things lie: the one module that knows paths.

`data/shipped` holds what comes with the project and is only read; what is made here goes to `data/made`. Both
have a folder for each kind of artifact.
"""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
SHIPPED = DATA / "shipped"
MADE = DATA / "made"
# These kinds have a folder that is not named as they are.
FOLDERS = {"network": "networks", "overfitting_run": "overfitting", "bench_run": "bench"}


def place(folder, filename):
    """Return where an artifact of this file name lies in `folder`, SHIPPED or MADE: by its kind.

    The kind is the name up to the first hyphen.
    """
    kind = filename.partition("-")[0]
    return folder / FOLDERS.get(kind, kind) / filename
