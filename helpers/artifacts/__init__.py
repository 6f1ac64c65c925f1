"""What is kept, and what long work needs.

`paths`, whole `files` or none, the `store` of artifacts and their records, `proofs`; `progress` of long work,
many jobs at a time in `sweeps`; `values` says what a parameter may be.
"""

__all__ = ["files", "paths", "progress", "proofs", "store", "sweeps", "values"]
