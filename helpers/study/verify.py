"""Proves what ships: `make verify`, or `python -m helpers.study.verify [MINUTES]`.

It looks at data/shipped alone. Every file must have a record with its SHA-256, and every network the
accuracy that its record says. Then entries are drawn at random from every kind of artifact, and computed
again by the function that KINDS names, until the time is over. At first each kind has its turn; then it is
drawn with a weight: every chapter of the report (READS) counts the same, and in it every kind that it
reads. So a kind counts by what rests on it, and not by its number of files or entries. Of a kind, each
artifact is as likely.
"""
import math
import sys
import time
from collections import Counter

import numpy as np
import pandas as pd

from helpers import networks
from helpers.artifacts import paths, store
from helpers.artifacts.progress import tqdm
from helpers.bench import measure
from helpers.study import accuracy, behind_jpeg, maps, overfitting, recompute, states, waves

READS = {
    "01_datos": ("statistics", "logits"),
    "02_entrenamiento": ("logits", "accuracy"),
    "03_ataques": ("answers", "robust_accuracy", "transfer", "carlini_wagner", "confidence", "checks",
                   "bench_run"),
    "04_defensa_jpeg": ("jpeg_clean", "jpeg_blind", "jpeg_aware", "jpeg_drawn", "jpeg_distances",
                        "carlini_wagner", "checks"),
    "05_transferencia": ("waves", "wave_errors", "codec_waves", "least_amplitude", "gain_seeds",
                         "carlini_wagner"),
    "06_sobreajuste": ("overfitting_run",),
    "07_saliencia": ("map_changes", "map_cascade", "map_labels", "made_into", "carlini_wagner"),
    "explorador": ("explorer",),
}

# kind: function(parameters, kept, rng) that yields (what, kept, now, whether they agree) of entries drawn
# by rng and computed again, a second or so each; None for `agrees` where it cannot be told, `now` saying why.
KINDS = {
    "accuracy": recompute.recompute_accuracy, "answers": recompute.recompute_answers,
    "carlini_wagner": recompute.recompute_carlini_wagner, "checks": recompute.recompute_checks,
    "confidence": recompute.recompute_confidence, "logits": recompute.recompute_logits,
    "robust_accuracy": recompute.recompute_robust_accuracy,
    "statistics": recompute.recompute_statistics, "transfer": recompute.recompute_transfer,
    "jpeg_clean": behind_jpeg.recompute_jpeg_clean, "jpeg_blind": behind_jpeg.recompute_jpeg_blind,
    "jpeg_aware": behind_jpeg.recompute_jpeg_aware, "jpeg_drawn": behind_jpeg.recompute_jpeg_drawn,
    "jpeg_distances": behind_jpeg.recompute_jpeg_distances,
    "waves": waves.recompute_waves, "wave_errors": waves.recompute_wave_errors,
    "codec_waves": waves.recompute_codec_waves, "least_amplitude": waves.recompute_least_amplitude,
    "gain_seeds": waves.recompute_gain_seeds,
    "map_changes": maps.recompute_map_changes, "map_cascade": maps.recompute_map_cascade,
    "map_labels": maps.recompute_map_labels, "made_into": maps.recompute_made_into,
    "explorer": states.recompute_explorer, "overfitting_run": overfitting.recompute_overfitting_run,
    "bench_run": measure.recompute_bench_run,
}


def files():
    """Return the shipped artifacts, each with its record; raise ValueError for one not as recorded."""
    found, there = [], [path for path in paths.SHIPPED.rglob("*")
                        if path.is_file() and not path.name.startswith(".")]
    names = {path.name for path in there}
    for path in sorted(there):
        if path == paths.SHIPPED / "README.md":
            continue
        if path.suffix == ".json":
            if path.stem not in names:
                raise ValueError(f"{path.with_suffix('')} is not there, but its record is")
            continue
        if path.suffix not in (".keras", ".csv", ".npz"):
            raise ValueError(f"{path} is no artifact: what ships are .keras, .csv and .npz files")
        if store.record_path(path).name not in names:
            raise ValueError(f"{path} has no record")
        place = paths.place(paths.SHIPPED, path.name)
        if path != place:
            raise ValueError(f"{path} lies in another folder than that of its kind, {place.parent}")
        record = store.read_record(path)
        if store.file_sha256(path) != record["sha256"]:
            raise ValueError(f"{path} is not the file that its record describes")
        if path.suffix != ".keras" and path.stem != f"{kind(path)}-{store.digest(record['parameters'])}":
            raise ValueError(f"{path} was made with other parameters than its name says")
        found.append((path, record))
    return found


def kind(path):
    """Return what an artifact is: its name up to the digest."""
    return path.name.partition("-")[0]


def weights(kinds):
    """Return the weight of each kind, adding up to 1; those that no chapter reads count as one chapter."""
    shares = {name: sum(1 / len(read) for read in READS.values() if name in read) for name in kinds}
    unread = [name for name, share in shares.items() if not share]
    shares |= {name: 1 / len(unread) for name in unread}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def network_units(found):
    """Measure each shipped network again on the images at hand; yield units as the functions of KINDS."""
    for path, record in found:
        if kind(path) == "network":
            try:
                recipe = networks.recipe_named(path.name)
                model, _ = networks.load_or_train(recipe)
                correct, n = accuracy.measure_again(recipe, model)
            except ValueError as error:
                yield path.name, "its recorded accuracy", str(error), False
            else:
                yield path.name, "its recorded accuracy", f"{correct} of {n} right", True


def drawn_units(found, rng):
    """Yield (kind, unit): units of artifacts drawn at random, each kind once and then by its weight.

    Ends only when no artifact has any unit left.
    """
    pools = {}
    for path, record in found:
        if kind(path) != "network":
            pools.setdefault(kind(path), {})[path] = record
    running, turns = {}, list(rng.permutation(list(pools)))
    while pools:
        share = weights(pools)
        name = turns.pop() if turns else rng.choice(list(share), p=list(share.values()))
        if name not in pools:
            continue
        path = list(pools[name])[rng.integers(len(pools[name]))]
        if path not in running:
            running[path] = units(path, pools[name][path], rng)
        unit = next(running[path], None)
        if unit is not None:
            yield name, unit
            continue
        del running[path], pools[name][path]
        if not pools[name]:
            del pools[name]


def units(path, record, rng):
    """Yield (what, kept, now, agrees) of entries of one artifact, its name first in what."""
    name = kind(path)
    if name not in KINDS:
        yield path.name, "", "no function computes this kind again", None
        return
    try:
        for what, kept, now, agrees in KINDS[name](record["parameters"], store.read(path), rng):
            yield f"{path.name} {what}", kept, now, agrees
    except store.NotHere as error:
        yield path.name, "", str(error), None
    except (ValueError, KeyError, IndexError, TypeError) as error:  # it is not what this kind holds
        last = (str(error).strip().splitlines() or [""])[-1]
        yield path.name, "an artifact of this kind", f"{type(error).__name__}: {last}", False


def verify(minutes=10.0, seed=None):
    """Verify all files and networks, and entries for the given minutes; return the exit code.

    1 where anything disagrees, or nothing was compared. Raises ValueError for other minutes than positive
    finite ones.
    """
    if not (isinstance(minutes, (int, float)) and 0 < minutes < math.inf):
        raise ValueError(f"MINUTES must be a positive finite number, got {minutes!r}")
    end, seed = time.monotonic() + 60 * minutes, np.random.SeedSequence().entropy if seed is None else seed
    with store.shipped_alone():
        found = files()
        print(f"{len(found)} shipped files have their recorded SHA-256. Seed of what is drawn: {seed}.")
        tally, why = {name: Counter() for name in sorted({kind(path) for path, _ in found})}, {}
        for unit in network_units(found):
            _count(tally["network"], why, "network", *unit)
        with tqdm(desc="entries", unit="", leave=False) as bar:
            for name, unit in drawn_units(found, np.random.default_rng(seed)):
                _count(tally[name], why, name, *unit)
                bar.update()
                if time.monotonic() > end:
                    break
    print(tally_table(found, tally))
    for (name, reason), times in why.items():
        print(f"Not recomputable here: {name}, {times} ×: {reason}")
    compared = sum(count["agree"] for count in tally.values())
    wrong = sum(count["disagree"] for count in tally.values())
    print(f"{compared + wrong} entries were compared, and {wrong or 'none'} of them disagree.")
    return 1 if wrong or not compared else 0


def tally_table(found, tally):
    """Return the table of what was compared: a line for each kind."""
    artifacts = Counter(kind(path) for path, _ in found)
    rows = [{"kind": name, "artifacts": artifacts[name], "recomputed": count["agree"] + count["disagree"],
             "agree": count["agree"], "disagree": count["disagree"], "not here": count["not here"]}
            for name, count in tally.items()]
    return pd.DataFrame(rows).to_string(index=False)


def _count(count, why, name, what, kept, now, agrees):
    """Count one unit; print it where it disagrees, and note why where it cannot be told."""
    if agrees is None:
        count["not here"] += 1
        why[name, now] = why.get((name, now), 0) + 1
        return
    count["agree" if agrees else "disagree"] += 1
    if not agrees:
        tqdm.write(f"disagrees: {what}: kept {kept}, now {now}")


def main(arguments):
    """Run `make verify`: MINUTES, 10 without it; return the exit code."""
    try:
        minutes = float(arguments[0]) if arguments else 10.0
    except ValueError:
        minutes = arguments[0]
    return verify(minutes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"make verify: {error}")
