"""What the chapters ask, kept as artifacts and proved on loading.

`accuracy` without an attack, `under_attack`, `behind_jpeg`, answers to `waves`, `maps` of saliency,
`overfitting`, `states` of the images that the explorer shows; `checks` says whether to believe an attack,
`scrutiny` keeps those that take minutes; `units` and `recompute` prove what is kept, `verify` draws from all
that ships.
"""

__all__ = [
    "accuracy", "behind_jpeg", "checks", "maps", "overfitting", "recompute", "scrutiny", "states",
    "under_attack", "units", "verify", "waves"]
