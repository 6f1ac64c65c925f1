"""What the chapters ask, kept as artifacts and proved on loading.

`accuracy` without an attack, `under_attack`, `behind_jpeg`, answers to `waves`, `maps` of saliency,
`overfitting`, `states` of the images that the explorer shows; `checks` says whether to believe an attack,
`scrutiny` keeps those that take minutes; `units` and `recompute` prove what is kept, `verify` draws from all
that ships.
"""
import importlib

__all__ = [
    "accuracy", "behind_jpeg", "checks", "errors", "images", "maps", "overfitting", "recompute", "scrutiny",
    "states", "under_attack", "units", "verify", "waves"]


def __getattr__(name):
    """Return a module of this room at its first use, `study.accuracy` in a notebook that imports `study`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
