"""Figures of saliency: maps over images, curves of similarity, rows of before and after.

As in plots.py, functions take data and axes, draw, and return the axes.
"""
import numpy as np

from helpers import plots


def overlay(x, values, ax, title=None, high=None):
    """Draw a map (H, W) in colour over the image (H, W, C) in grey; return ax.

    high: the value of full colour; give maps that are compared the same. None: the map's own largest.
    """
    grey = x.mean(axis=2)
    plots.image(np.repeat(grey[..., None], 3, axis=2), ax, title)
    high = high or max(float(values.max()), 1e-12)
    share = np.clip(values / high, 0, 1)
    ax.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * share)
    return ax


def signed(values, ax, title=None, high=None):
    """Draw an attribution (H, W, C), summed over the channels, red for the class and blue against; return ax."""
    values = values.sum(axis=2)
    high = high or max(float(np.abs(values).max()), 1e-12)
    plots.image(np.zeros((*values.shape, 1)), ax, title)
    ax.imshow(values, cmap="RdBu_r", vmin=-high, vmax=high)
    return ax


def similarity(count, values, ax, marker, label, interval):
    """Draw the mean similarity (P, n) against the number of random layers (P,), with its 95 % band; return ax."""
    low, high = np.transpose([interval(row[np.isfinite(row)]) if np.isfinite(row).any() else (np.nan, np.nan)
                              for row in values])
    line, = ax.plot(count, np.nanmean(values, axis=1), marker=marker, markersize=3, label=label)
    ax.fill_between(count, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    return plots.decorate(ax, "capas al azar")
