"""Where things lie: the one module that knows paths.

`data/shipped` holds what comes with the project and is only read; what is made here goes to `data/made`.
"""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
SHIPPED = DATA / "shipped"
MADE = DATA / "made"
