"""Proves what ships: `make verify`, or `python -m helpers.verify [MINUTES]`.

Every shipped file must have its recorded SHA-256 and every shipped network its recorded accuracy.
Then entries of the shipped tables, drawn at random, are computed again until the time is over; each
must lie within the interval that the table states.
"""
import importlib
import random
import sys
import time

import pandas as pd

from helpers import evaluation, store, training


def files():
    """Return the shipped artifacts, each with its record; raise ValueError for one not as recorded."""
    found = []
    for path in sorted(store.SHIPPED.glob("*")):
        if path.suffix in (".keras", ".csv", ".npz"):
            record = store.read_record(path)
            if store.file_sha256(path) != record["sha256"]:
                raise ValueError(f"{path} is not the file that its record describes")
            found.append((path, record))
    return found


def networks(found):
    """Measure each shipped network again on the images at hand; yield a line a network."""
    for path, _ in found:
        if path.suffix == ".keras":
            model, recipe, _ = training.read_network(path)
            correct, n = evaluation.measure_again(recipe, model)
            yield f"{path.name}: {correct} of {n} right, as recorded"


def entries(found):
    """Return the entries of the shipped tables, in random order: (file name, row, function)."""
    rows = []
    for path, record in found:
        if path.suffix == ".csv":
            module, _, name = record.get("recompute", "").partition(":")
            if not module.startswith("helpers."):
                raise ValueError(f"{path} does not say how its entries are computed again")
            function = getattr(importlib.import_module(module), name)
            rows += [(path.name, row, function)
                     for row in pd.read_csv(path).to_dict(orient="records")]
    random.shuffle(rows)
    return rows


def agree(row, value):
    """Return whether a recomputed value lies within the interval [low, high] of a table's row."""
    return row["low"] - 1e-9 <= value <= row["high"] + 1e-9


def verify(minutes=10.0):
    """Verify all files and networks, and entries for the given minutes; return the exit code."""
    end = time.monotonic() + 60 * minutes
    found = files()
    print(f"{len(found)} shipped files have their recorded SHA-256.")
    for line in networks(found):
        print(line)
    counts = {"agree": 0, "disagree": 0, "not to be computed here": 0, "left for lack of time": 0}
    for name, row, recompute in entries(found):
        if time.monotonic() > end:
            counts["left for lack of time"] += 1
            continue
        value = recompute(row)
        if value is None:
            counts["not to be computed here"] += 1
            continue
        outcome = "agree" if agree(row, value) else "disagree"
        counts[outcome] += 1
        what = " ".join(f"{key}={text}" for key, text in row.items()
                        if key not in ("value", "low", "high") and text == text)
        print(f"{outcome}: {name} {what}: {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}], "
              f"now {value:.4f}")
    print("Entries: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["disagree"] or not counts["agree"] else 0


if __name__ == "__main__":
    try:
        sys.exit(verify(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
    except ValueError as error:
        sys.exit(f"make verify: {error}")
