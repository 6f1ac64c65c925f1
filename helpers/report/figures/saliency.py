"""Figures of saliency: maps over images, curves of similarity, rows of before and after.

As in common.py, functions take data and axes, draw, and return the axes.
"""
import numpy as np

from helpers.report.figures import common
from helpers.statistics import intervals


def overlay(x, values, ax, title=None, high=None):
    """Draw a map (H, W) in colour over the image (H, W, C) in grey; return ax.

    high: the value of full colour; give maps that are compared the same. None: the map's own largest.
    """
    grey = x.mean(axis=2)
    common.image(np.repeat(grey[..., None], 3, axis=2), ax, title)
    high = high or max(float(values.max()), 1e-12)
    share = np.clip(values / high, 0, 1)
    ax.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * share)
    return ax


def signed(values, ax, title=None, high=None):
    """Draw an attribution (H, W, C), summed over the channels; return ax.

    Grey is 0, the lighter the more for the class, the darker against it: in greyscale too.
    """
    values = values.sum(axis=2)
    high = high or max(float(np.abs(values).max()), 1e-12)
    common.image(np.zeros((*values.shape, 1)), ax, title)
    ax.imshow(values, cmap="cividis", vmin=-high, vmax=high)
    return ax


def before_after(images, maps, titles, axes):
    """Draw images (K, H, W, C) with maps (K, H, W) over them, all maps in one scale; return the axes, (K,).

    A map that is None leaves its image bare.
    """
    high = max(float(values.max()) for values in maps if values is not None)
    for x, values, title, ax in zip(images, maps, titles, axes, strict=True):
        if values is None:
            common.image(x, ax, title)
        else:
            overlay(x, values, ax, title, high or 1)
        ax.title.set_fontsize(6)
    return axes


def similarity(count, values, ax, kind, label):
    """Draw the mean similarity (P, n) by the number of random layers (P,), with 95 % bands; return ax."""
    middle, low, high = np.transpose([intervals.mean(row) for row in values])
    ax.plot(count, middle, color=common.COLORS[kind], linestyle=common.LINES[kind],
            marker=common.MARKERS[kind],
            markersize=3, label=label)
    ax.fill_between(count, low, high, color=common.COLORS[kind], alpha=0.2, linewidth=0)
    return common.decorate(ax, "capas al azar")


def dots(rows, values, ax, kind, label, offset=0.0):
    """Draw (mean, low, high), (K, 3), as dots with their 95 % bars, one a row; return ax.

    rows: their names, from the top down. offset: how far below its row's middle, so that several fit.
    """
    middle, low, high = np.transpose(values)
    at = np.arange(len(rows)) + offset
    ax.errorbar(middle, at, xerr=[middle - low, high - middle], fmt=common.MARKERS[kind], markersize=3.5,
                linewidth=1,
                color=common.COLORS[kind], label=label)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax
