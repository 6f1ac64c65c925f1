"""What is kept: `paths`, whole `files` or none, the `store` of artifacts and their records, `proofs`, and
long work with its `progress`, many jobs at a time in `sweeps`. `values` says what a parameter may be.
"""

__all__ = ["files", "paths", "progress", "proofs", "store", "sweeps", "values"]
