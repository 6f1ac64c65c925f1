"""The benchmark as a table: one tidy row for each library, cell and quantity, with its interval."""
import functools

import numpy as np
import pandas as pd

from helpers.artifacts import store
from helpers.artifacts.progress import tqdm
from helpers.bench import measure
from helpers.statistics import intervals

COLUMNS = ["dataset", "model", "seed", "attack", "norm", "eps", "targeted", "library", "variant", "n",
           "repeats", "metric", "value", "low", "high"]


def benchmark(cells=measure.CELLS, n=None, repeats=None):
    """Return the table of these cells, measuring what is not kept; n, repeats: not the usual ones.

    Metrics: "seconds" of a call on n images; for ours "limit", these over those of the bare passes
    timed in turn with it; for a peer "slower", these over those of our attack timed in turn with it (of all
    three the median; low and high are the extremes); "success" (share of the n images), "mean_l2" and
    "median_l2" (over successes) and, for Carlini-Wagner, "difference": our mean L2 less the peer's, in
    percent of the peer's, over the n images where both succeeded. Intervals are of 95 %, NaN for the L2
    of a single image. Each measurement is an artifact by itself, so that an interrupted benchmark goes on.
    """
    wanted, listed = _wanted(cells, n, repeats)
    kept = {}

    def collect():
        bar = tqdm(sorted(wanted, key=lambda key: measure.goes_last(*key[:2])), unit="run")
        for key in bar:
            bar.set_description(name(*key))
            what = wanted[key]
            kept[key] = store.cached("bench_run", what, lambda: measure.measure(
                *key, what["n"], what["repeats"]), check=functools.partial(measure.prove_cell, what))
        measured = {key: kept[key] for key in wanted}
        store.cached("bench_l2", listed, lambda: {name(*key): m["l2"] for key, m in measured.items()})
        return combine(measured)

    def check(table):
        found = {key: store.cached("bench_run", what, None) for key, what in wanted.items()
                 if store.has("bench_run", what)}
        if len(found) == len(wanted) and not _same(table, combine(found)):
            raise ValueError("the kept table of the benchmark is not that of its measurements: delete it to "
                             "have it made again")
    return store.cached("bench", listed, collect, check=check)


def _same(one, two):
    """Return whether two tables state the same numbers of the same measurements, in any order."""
    keys = ["dataset", "model", "attack", "norm", "targeted", "library", "variant", "metric"]
    one, two = (table.sort_values(keys)[["value", "low", "high"]].to_numpy(float) for table in (one, two))
    return one.shape == two.shape and np.allclose(one, two, rtol=1e-6, equal_nan=True)


def finished():
    """Return the table of all that `make bench` has measured so far, or None where that is nothing.

    A cell counts from the moment that our own attack has been measured on it.
    """
    wanted, _ = _wanted(measure.CELLS)
    kept = {key: store.cached("bench_run", what, None, check=functools.partial(measure.prove_cell, what))
            for key, what in wanted.items() if store.has("bench_run", what)}
    kept = {key: value for key, value in kept.items() if (key[0], "ours", "compiled") in kept}
    return combine(kept) if kept else None


def _wanted(cells, n=None, repeats=None):
    """Return (what to measure: (cell, library, variant) to parameters; what the table is kept by)."""
    wanted = {(cell, *peer): measure.parameters(cell, *peer, n, repeats)
              for cell in cells for peer in measure.libraries(cell)}
    return wanted, {"measurements": {name(*key): store.digest(what) for key, what in wanted.items()}}


def summary(table):
    """Return a row for each cell, library and variant, by name: a wide table of the metrics.

    ms: milliseconds an image. limit, slower: as in `benchmark`. gap, gap_low, gap_high: of "difference".
    """
    rows = []
    for _, group in table.groupby(["dataset", "attack", "norm", "targeted"], sort=False):
        for (library, variant), mine in group.groupby(["library", "variant"], sort=False):
            value, gap = mine.set_index("metric").value, mine[mine.metric == "difference"]
            row = mine.iloc[0][["dataset", "model", "attack", "norm", "targeted"]].to_dict() | {
                "library": library, "variant": variant, "n": int(mine.n.max()),
                "ms": 1e3 * value.seconds / mine.n.max(), "success": value.success,
                **{metric: value.get(metric, np.nan)
                   for metric in ("limit", "slower", "mean_l2", "median_l2")}}
            for key, column in (("gap", "value"), ("gap_low", "low"), ("gap_high", "high")):
                row[key] = gap[column].item() if len(gap) else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def name(cell, library, variant):
    """Return the name of a measurement, under which bench_l2 keeps its L2 norms."""
    return f"{cell.name}-{library}-{variant.replace(' ', '_')}"


def combine(measured):
    """Return the table of measurements: dict of (cell, library, variant) to a dict of arrays."""
    rows = []
    for (cell, library, variant), kept in measured.items():
        ours = measured[cell, "ours", "compiled"]
        fixed = {**cell._asdict(), "seed": 0, "eps": cell.settings.get("eps", np.nan),
                 "library": library, "variant": variant, "n": len(kept["l2"]),
                 "repeats": len(kept["seconds"])}
        rows += [fixed | row for row in quantities(kept)]
        if cell.attack == "carlini_wagner" and library != "ours":
            rows += [fixed | row for row in difference(ours["l2"], kept["l2"])]
    return pd.DataFrame(rows, columns=COLUMNS)


def quantities(kept):
    """Return the rows of one measurement, as far as they do not depend on others."""
    times = {"seconds": kept["seconds"]}
    for metric, reference in (("limit", "bare_seconds"), ("slower", "ours_seconds")):
        if reference in kept:
            times[metric] = kept["seconds"] / ((kept[reference][:-1] + kept[reference][1:]) / 2)
    rows = [_row(metric, np.median(values), (values.min(), values.max())) for metric, values in times.items()]
    found = kept["l2"][~np.isnan(kept["l2"])].astype(np.float64)
    rows.append(_row("success", len(found) / len(kept["l2"]),
                     intervals.interval(len(found), len(kept["l2"]))))
    for metric, statistic in (("mean_l2", np.mean), ("median_l2", np.median)):
        if len(found):
            rows.append(_row(metric, statistic(found), _interval(statistic, found)))
    return rows


def difference(ours, peer):
    """Return [the row of our mean L2 less the peer's, in percent of it], paired image by image.

    ours, peer: (N,) and (M,) for the same images as far as both go, NaN where they failed; the
    images where both succeeded count. [] where there are none.
    """
    n = min(len(ours), len(peer))
    both = ~np.isnan(ours[:n]) & ~np.isnan(peer[:n])
    if not both.any():
        return []
    a, b = ours[:n][both].astype(np.float64), peer[:n][both].astype(np.float64)
    return [_row("difference", _percent(a, b), _interval(_percent, a, b))
            | {"n": int(both.sum())}]


def text(table):
    """Return the table as lines to read: a block for each cell, a line for each library.

    "x bare": "limit" of `benchmark`; "x ours": "slower".
    """
    lines, keys = [], ["dataset", "model", "attack", "norm", "targeted"]
    for cell, rows in summary(table).groupby(keys, sort=False):
        lines += ["", measure.Cell(*cell).name, _LINE.format(*_HEAD)]
        for row in rows.itertuples():
            numbers = ((row.ms, 2), (row.limit, 2), (row.slower, 2), (100 * row.success, 1),
                       (row.mean_l2, 4), (row.median_l2, 4))
            gap = "" if np.isnan(row.gap) else f"{row.gap:+.2f}"
            gap += "" if np.isnan(row.gap_low) else f" [{row.gap_low:+.2f}, {row.gap_high:+.2f}]"
            lines.append(_LINE.format(f"{row.library} {row.variant}", row.n,
                                      *(_number(*number) for number in numbers), gap).rstrip())
    return "\n".join(lines)


_HEAD = ("", "images", "ms/image", "x bare", "x ours", "success %", "mean L2", "median",
         "our mean L2 to its, %")
_LINE = "{:22}{:>7}{:>10}{:>8}{:>8}{:>11}{:>9}{:>9}  {}"


def _number(value, decimals):
    return "" if np.isnan(value) else f"{value:.{decimals}f}"


def _row(metric, value, interval):
    return {"metric": metric, "value": float(value), "low": float(np.minimum(interval[0], value)),
            "high": float(np.maximum(interval[1], value))}


def _interval(statistic, *values):
    """Return the bootstrap's interval; NaN for a single image, which says nothing of others."""
    return intervals.bootstrap(statistic, *values) if len(values[0]) > 1 else (np.nan, np.nan)


def _percent(ours, peer):
    return 100 * (ours.mean() / peer.mean() - 1)
