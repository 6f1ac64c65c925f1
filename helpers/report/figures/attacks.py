"""Figures of attacks: images beside what was done to them, curves against eps, distances.

As in common.py, functions take data and axes, draw, and return the axes.
"""
import matplotlib.pyplot as plt
import numpy as np

from helpers import datasets
from helpers.report import text
from helpers.report.figures import common


def perturbation(delta, ax, scale, title=None):
    """Draw a perturbation (H, W, C): 0 is mid-grey, ± scale are black and white; return ax."""
    return common.image(np.clip(0.5 + delta / (2 * scale), 0, 1), ax, title)


def ladder(images, deltas, captions, wrong, scale, axes):
    """Draw attacked images (K, H, W, C) in one row and their perturbations below; return the axes.

    axes: (2, K). captions: K texts (answer and confidence). wrong: K booleans; a wrong answer is bold.
    scale: of all perturbations of the row.
    """
    for (top, bottom), image, delta, caption, bold in zip(axes.T, images, deltas, captions, wrong,
                                                          strict=True):
        common.image(image, top, caption)
        top.title.set(fontsize=6, fontweight="bold" if bold else "normal")
        perturbation(delta, bottom, scale)
    return axes


def accuracy_curve(eps, correct, ax, kind, label=None, interval=None):
    """Draw accuracy against eps with its 95 % band; return ax.

    correct: (K, n) booleans. kind: of figures.COLORS. interval(correct, n) -> (low, high).
    """
    share, n = correct.mean(axis=1), correct.shape[1]
    low, high = zip(*(interval(total, n) for total in correct.sum(axis=1)), strict=True)
    ax.fill_between(eps, low, high, color=common.COLORS[kind], alpha=0.2, linewidth=0)
    ax.plot(eps, share, color=common.COLORS[kind], linestyle=common.LINES[kind], label=label,
            marker=common.MARKERS[kind], markersize=3)
    return ax


def radius_axis(ax, eps, dataset, norm, narrow=False):
    """Make the abscissa the radius, so that both its small and its great values are seen; return ax.

    dataset: its name, by whose unit radii in L-infinity are written. narrow: fewer ticks, for axes of a
    quarter of the width.
    """
    smallest = min(e for e in eps if e > 0)
    ax.set_xscale("symlog", linthresh=2 * smallest, linscale=0.5)
    unit = datasets.record(dataset).radius_unit
    if norm == np.inf and unit > 1:
        ticks = [e for e in eps if e in (0, 0.5) or np.isclose(unit * e, (1, 4, 16)).any()]
        labels = [text.number(unit * e, 1 if e == 0.5 else 0) for e in ticks]
        name = f"$\\varepsilon$ en $L_\\infty$ (× 1/{unit})"
    else:
        chosen = (0, 3) if narrow else (0, 1, 3, 5, 7)
        ticks = [e for i, e in enumerate(eps) if i in chosen or e == max(eps)]
        labels = [text.number(e, 2).rstrip("0").rstrip(".") for e in ticks]
        name = "$\\varepsilon$ en $L_\\infty$" if norm == np.inf else "$\\varepsilon$ en $L_2$"
    ax.set_xticks(ticks, labels)
    ax.minorticks_off()
    ax.set(ylim=(-0.02, 1.02), xlim=(0, 1.05 * max(eps)))
    common.percent_axis(ax.yaxis)
    return common.decorate(ax, xlabel=name)


def chance(ax, level, grey=None):
    """Mark the level of chance, and the radius from which uniform grey is in reach; return ax."""
    ax.axhline(level, color="black", linewidth=0.6, linestyle=(0, (1, 2)))
    if grey is not None:
        ax.axvline(grey, color="black", linewidth=0.6, linestyle=(0, (4, 2)))
    return ax


def class_grid(images, names, width=common.WIDTH):
    """Draw a grid of images: row for the true class, column for the target; return the axes, (K, K).

    images: (K, K, H, W, C) of K classes, None where there is none. names: of the classes. The diagonal, the
    originals, is framed.
    """
    fig, axes = plt.subplots(len(names), len(names), figsize=(width, width))
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            if images[i][j] is None:
                ax.axis("off")
                continue
            common.image(images[i][j], ax)
            if i == j:
                for spine in ax.spines.values():
                    spine.set(linewidth=1.8, color=common.COLORS["fgsm"])
        row[0].set_ylabel(names[i], rotation=0, ha="right", va="center", fontsize=7)
    for j, ax in enumerate(axes[0]):
        ax.set_title(names[j], fontsize=7, pad=5, rotation=0 if len(names[j]) < 3 else 90)
    fig.supxlabel("clase objetivo (columnas)", fontsize=7)
    fig.supylabel("clase verdadera (filas)", fontsize=7)
    return axes


def cumulative(values, ax, kind, label=None, linestyle=None, color=None):
    """Draw the share of images whose distance is at most the abscissa; infinite ones never; return ax."""
    values = np.sort(np.asarray(values, float))
    finite = values[np.isfinite(values)]
    ax.step(np.r_[0, finite], np.arange(len(finite) + 1) / len(values), where="post", label=label,
            color=color or common.COLORS[kind], linestyle=linestyle or common.LINES[kind])
    ax.set(ylim=(0, 1.02), xlim=(0, 1.02 * ax.dataLim.x1 or None))  # of this curve and those before
    common.percent_axis(ax.yaxis)
    return ax


def matrix(shares, rows, columns, ax):
    """Draw a matrix of proportions in grey with each written in %; return ax. NaN: left empty."""
    ax.imshow(shares, cmap="Greys", vmin=0, vmax=1.3)
    for (i, j), share in np.ndenumerate(shares):
        if np.isfinite(share):
            ax.text(j, i, text.number(100 * share, 0), ha="center", va="center", fontsize=7,
                    color="white" if share > 0.75 else "black")
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    return ax


def growth(grown, axes, kind, label, interval):
    """Draw distance and transfer against the confidence asked for, on two axes; return them.

    grown: of under_attack.confidence_growth. interval(correct, n) -> (low, high).
    """
    style = {"color": common.COLORS[kind], "linestyle": common.LINES[kind], "marker": common.MARKERS[kind],
             "markersize": 3}
    confidence, found = grown["confidence"], np.where(np.isfinite(grown["l2"]), grown["l2"], np.nan)
    low, middle, high = np.nanpercentile(found, [25, 50, 75], axis=1)
    axes[0].fill_between(confidence, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes[0].plot(confidence, middle, label=label, **style)
    known = np.isfinite(grown["transferred"])
    hits, n = np.nansum(grown["transferred"], axis=1).astype(int), np.maximum(known.sum(axis=1), 1)
    low, high = zip(*map(interval, hits, n), strict=True)
    axes[1].fill_between(confidence, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes[1].plot(confidence, hits / n, **style)
    common.percent_axis(axes[1].yaxis)
    common.decorate(axes[1], xlabel="confianza $\\kappa$ (logits)")
    return axes
