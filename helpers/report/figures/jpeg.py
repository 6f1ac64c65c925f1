"""Figures of JPEG: its steps, the ladder of qualities, curves behind it, spectra, gains.

As in common.py, functions take data and axes, draw, and return the axes.
"""
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.lines import Line2D

from helpers.report import text
from helpers.report.figures import attacks, common

_MARKERS = "osD^vPX*"


def quality_style(quality, qualities):
    """Return colour, line and marker of a quality: the lower the paler; without JPEG, 0, black rays."""
    if quality == 0:
        return {"color": "black", "linestyle": "--", "marker": "", "linewidth": 1}
    known = sorted(set(qualities) - {0})
    k = known.index(quality)
    shade = 0.25 + 0.65 * k / max(len(known) - 1, 1)
    return {"color": (0.85 * (1 - shade), 0.95 - 0.62 * shade, 0.92 - 0.42 * shade), "linestyle": "-",
            "marker": _MARKERS[k % len(_MARKERS)], "markersize": 3}


def quality_label(quality):
    """Return "q = 25", or "sin JPEG"."""
    return f"q = {quality}" if quality else "sin JPEG"


def colour_plane(values, ax, title=None, high=255):
    """Draw a plane (H, W) of numbers from 0 to high, without ticks; return ax."""
    return common.image(values / high, ax, title)


def coefficients(blocks, ax, title=None):
    """Draw the DCT (rows, columns, 8, 8) of a plane, each block in its place, by the logarithm; return ax."""
    rows, columns = blocks.shape[:2]
    joined = blocks.transpose(0, 2, 1, 3).reshape(8 * rows, 8 * columns)
    colour_plane(np.log10(1 + np.abs(joined)), ax, title, np.log10(1 + 1024))
    for k in range(1, rows):
        ax.axhline(8 * k - 0.5, color=common.COLORS["data"], linewidth=0.4)
    for k in range(1, columns):
        ax.axvline(8 * k - 0.5, color=common.COLORS["data"], linewidth=0.4)
    return ax


def table(values, ax, title=None, high=200):
    """Draw a table of quantisation (8, 8), each step written, the darker the nearer to high; return ax."""
    ax.imshow(values, cmap="Greys", vmin=0, vmax=1.25 * high)
    for (u, v), value in np.ndenumerate(values):
        ax.text(v, u, text.number(value, 0), ha="center", va="center", fontsize=5,
                color="white" if value > 0.75 * high else "black")
    return dct_axes(ax, title)


def map_of_decibels(values, ax, title=None, span=20):
    """Draw an (8, 8) array of dB: 0 white, above it red with a dot, below it blue; return (ax, image)."""
    image = ax.imshow(values, cmap="RdBu_r", norm=TwoSlopeNorm(0, -span, span))
    u, v = np.nonzero(values > 0)  # in grey, as much above and below 0 look the same
    ax.plot(v, u, "ko", markersize=2.2, markeredgecolor="white", markeredgewidth=0.4)
    return dct_axes(ax, title), image


def dct_axes(ax, title=None):
    """Label the axes of an (8, 8) map of DCT bins; return ax."""
    ax.set_xticks([0, 7])
    ax.set_yticks([0, 7])
    return common.decorate(ax, "$v$", "$u$", title)


def quality_curve(quality, right, ax, kind, interval, label=None):
    """Draw the share of right answers against quality, with its 95 % band; return ax.

    right: (Q, N) booleans, of qualities from 1 on. kind: of figures.COLORS.
    """
    attacks.accuracy_curve(quality, right, ax, kind, label, interval)
    ax.lines[-1].set_markevery(4)
    common.percent_axis(ax.yaxis)
    ax.set(ylim=(-0.02, 1.02), xlim=(0, 101))
    return common.decorate(ax, xlabel="calidad $q$")


def curves_by_quality(eps, right, qualities, ax, interval):
    """Draw accuracy against eps, a curve a quality, with bands without JPEG and at the lowest; return ax.

    right: (K, Q, N) booleans.
    """
    n = right.shape[2]
    for quality, answers in zip(qualities, right.swapaxes(0, 1), strict=True):
        style, counts = quality_style(quality, qualities), answers.sum(axis=1)
        if quality in (0, min(set(qualities) - {0})):
            low, high = zip(*(interval(count, n) for count in counts), strict=True)
            ax.fill_between(eps, low, high, color=style["color"], alpha=0.15, linewidth=0)
        ax.plot(eps, counts / n, label=quality_label(quality), **style)
    return ax


def spectrum(frequency, before, after, ax, kind, label):
    """Draw the energy in each ring of radial frequency, before JPEG (line) and after (rays); return ax."""
    style = {"color": common.COLORS[kind], "marker": common.MARKERS[kind], "markersize": 3}
    ax.plot(frequency, before, linestyle="-", label=label, **style)
    ax.plot(frequency, after, linestyle="--", markerfacecolor="white", **style)
    ax.set_yscale("log")
    return common.decorate(ax, xlabel="frecuencia radial (ciclos por píxel)")


def before_and_after(fig, kinds):
    """Add to a figure the legend of `spectrum`: what each colour is, and line and rays; return it."""
    handles = [Line2D([], [], color=common.COLORS[kind], marker=common.MARKERS[kind], markersize=3,
                      label=text.ATTACKS[kind]) for kind in kinds]
    handles += [Line2D([], [], color="0.3", linestyle=line, label=label)
                for line, label in (("-", "antes de JPEG"), ("--", "después"))]
    return fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def agreement(predicted, observed, ax, color, marker="o", label=None, size=6):
    """Draw what was measured against what was predicted, with the diagonal; return ax."""
    predicted, observed = np.ravel(predicted), np.ravel(observed)
    if not ax.lines:
        ax.axline((0, 0), slope=1, color="black", linewidth=0.6, linestyle=":")
    ax.scatter(predicted, observed, s=size, color=color, marker=marker, label=label, alpha=0.8,
               linewidth=0.8 if marker == "x" else 0)
    return ax
