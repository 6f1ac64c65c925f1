"""Figures of frequencies: Bode diagrams, planes of frequencies, spectra of perturbations.

As in common.py, functions take data and axes, draw, and return the axes.
"""
import numpy as np
from matplotlib.colors import to_rgb

from helpers.report.figures import common

RADIAL = "frecuencia radial (ciclos por píxel)"


def bode(frequency, power, ax, kind, interval, label=None, **style):
    """Draw the gain in dB against frequency, with its 95 % band over the images; return ax.

    power: |gain|² of each of N images in R rings, (N, R). interval(power) -> (low, high) of its mean, in dB.
    kind: of figures.COLORS.
    """
    style = {"color": common.COLORS[kind], "linestyle": common.LINES[kind], "marker": common.MARKERS[kind],
             "markersize": 2.5, "label": label} | style
    low, high = interval(power)
    ax.fill_between(frequency, low, high, color=style["color"], alpha=0.2, linewidth=0)
    ax.plot(frequency, 10 * np.log10(power.mean(axis=0)), **style)
    return radial_axis(ax)


def phase(frequency, angle, resultant, significant, ax, kind):
    """Draw the relative phase in degrees where significant, larger where more images agree; return ax."""
    shown = np.asarray(significant, bool)
    ax.axhline(0, color="0.7", linewidth=0.6)
    ax.scatter(frequency[shown], np.degrees(angle[shown]), s=4 + 60 * resultant[shown],
               color=common.COLORS[kind],
               marker=common.MARKERS[kind], linewidth=0, alpha=0.85)
    ax.set(ylim=(-190, 190), yticks=[-180, -90, 0, 90, 180])
    return radial_axis(ax)


def radial_axis(ax, label=True):
    """Make the abscissa a logarithmic radial frequency; return ax."""
    common.log_axis(ax.xaxis)
    ax.set_xticks([0.05, 0.1, 0.2, 0.5])
    ax.set_xlim(0.028, 0.7)
    return common.decorate(ax, xlabel=RADIAL if label else None)


def frequency_plane(values, ax, title=None, low=None, high=None, cmap="viridis"):
    """Draw values of a plane of frequencies, zero in the middle; return (ax, image)."""
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, extent=(-0.5, 0.5, 0.5, -0.5))
    ax.set(xticks=[-0.5, 0, 0.5], yticks=[-0.5, 0, 0.5])
    ax.grid(False)
    return common.decorate(ax, title=title), image


def shade(kind, k, count):
    """Return the colour of a thing, from pale for the first of `count` to full for the last."""
    share = 0.4 + 0.6 * k / max(count - 1, 1)
    return tuple(1 - share * (1 - channel) for channel in to_rgb(common.COLORS[kind]))


def by_ring(values, ring):
    """Return the means (..., R) of values (..., K) over the frequencies of each ring (K,)."""
    return np.stack([values[..., ring == number].mean(axis=-1) for number in np.unique(ring)], axis=-1)
