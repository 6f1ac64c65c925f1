"""Figures: one style for the whole report. Functions take data and axes, draw, and return the axes.

Colours are Okabe and Ito's, safe for the colour-blind; a second sign (line, marker) tells the same
where the figure is printed in grey.
"""
import matplotlib.pyplot as plt
import seaborn
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from helpers.report import text

WIDTH = 6.7  # inches: a figure across the text, printed at its own size
HALF = 0.49 * WIDTH  # of two side by side

# One colour for one thing, everywhere.
COLORS = {
    "lenet": "#0072B2", "resnet": "#D55E00",
    "lenet-adv": "#00344F", "resnet-adv": "#6B2F00",  # trained adversarially: the same, darker
    "lenet-jpeg": "#7FA8C9", "resnet-jpeg": "#E8A06B",  # trained on JPEG images: the same, paler
    "fgsm": "#E69F00", "pgd": "#CC79A7", "carlini_wagner": "#009E73", "noise": "#7F7F7F",
    "blind": "#B8A13A", "identity": "#332288", "differentiable": "#882255",  # attackers of JPEG
    "probabilities": "#A6761D", "cross_entropy": "#E69F00", "tempered": "#999933",  # FGSM by its loss
    "float64": "#44AA99", "margin": "#117733", "pgd_margin": "#CC79A7",
    "grad_cam": "#5E3C99", "gradient": "#CC6677", "integrated": "#7A6A00", "smooth": "#AA4499",  # maps
    "worst": "#000000", "data": "#56B4E9", "true_class": "#222222", "other_class": "#BDBDBD",
}
LINES = {"lenet": "-", "resnet": "--", "lenet-adv": "-.", "resnet-adv": ":",
         "lenet-jpeg": (0, (5, 1)), "resnet-jpeg": (0, (3, 1, 1, 1)),
         "fgsm": "--", "pgd": "-", "carlini_wagner": "-.", "noise": ":",
         "probabilities": ":", "cross_entropy": "--", "tempered": (0, (5, 1)),
         "float64": (0, (3, 1, 1, 1)), "margin": "-.", "pgd_margin": "-",
         "grad_cam": "-", "gradient": "--", "integrated": "-.", "smooth": ":",
         "blind": ":", "identity": "--", "differentiable": "-.", "worst": "-"}
MARKERS = {"lenet": "o", "resnet": "s", "lenet-adv": "p", "resnet-adv": "P",
           "lenet-jpeg": "h", "resnet-jpeg": "*",
           "fgsm": "^", "pgd": "v", "carlini_wagner": "D", "noise": "x",
           "probabilities": "X", "cross_entropy": "^", "tempered": "d", "float64": "<",
           "margin": "s", "pgd_margin": "v",
           "grad_cam": "o", "gradient": "s", "integrated": "D", "smooth": "^",
           "blind": "o", "identity": "s", "differentiable": "^", "worst": "."}


def style():
    """Set the report's style for this process: call it once, at a notebook's head."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    set_matplotlib_formats("svg", metadata={"Date": None}, bbox_inches=None)  # at its own size
    seaborn.set_theme(context="paper", style="ticks", rc={
        "figure.figsize": (WIDTH, 2.8), "figure.constrained_layout.use": True, "figure.dpi": 200,
        "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.07,
        "savefig.dpi": 200, "svg.hashsalt": "report", "font.family": "DejaVu Sans",
        "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7,
        "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.4,
        "image.cmap": "gray", "image.interpolation": "none", "image.composite_image": False})


def show():
    """Show the current figure beneath the cell."""
    plt.show()


def decorate(ax, xlabel=None, ylabel=None, title=None):
    """Set labels (with their units) and title; return ax."""
    ax.set(**{key: words for key, words in
              {"xlabel": xlabel, "ylabel": ylabel, "title": title}.items() if words is not None})
    return ax


def percent_axis(axis):
    """Write the ticks of an axis of proportions as percentages; return the axis."""
    axis.set_major_formatter(FuncFormatter(
        lambda value, _: f"{100 * value:.4g}\u00a0%"))
    return axis


def image(x, ax, title=None):
    """Draw one image (H, W, C) in [0, 1] without ticks; return ax."""
    ax.imshow(x.squeeze(), vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.4, color="0.6")
    if title is not None:
        ax.set_title(title, pad=2, fontsize=7)
    return ax


def image_grid(x, titles=None, columns=10, width=WIDTH):
    """Draw images (N, H, W, C) in rows of `columns`, each with its title; return the axes, (N,)."""
    rows = -(-len(x) // columns)
    height = rows * (1.03 * width / columns + (0.16 if titles is not None else 0))
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.02, hspace=0.02)
    for i, ax in enumerate(axes.flat):
        if i < len(x):
            image(x[i], ax, None if titles is None else titles[i])
        else:
            ax.axis("off")
    return axes.flat[:len(x)]


def row_labels(axes, labels, columns):
    """Write labels to the left of the rows of a grid of `columns` images; return the axes."""
    for ax, label in zip(axes[::columns], labels, strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=4)
    return axes


def class_counts(table, names):
    """Draw the counts of each class, training and test; return the two axes.

    table: of datasets.statistics. names: what to write below the bars.
    """
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.8))
    for ax, split, title in zip(axes, ("train", "test"), ("entrenamiento", "prueba"), strict=True):
        is_count = (table.split == split) & table.quantity.str.startswith("class")
        counts = table[is_count].value.astype(int).to_numpy()
        bars = ax.bar(range(len(counts)), counts, color=COLORS["data"], width=0.75)
        for label in ax.bar_label(bars, map(text.number, counts), fontsize=5.3, padding=1):
            label.set_bbox({"color": "white", "pad": 0.5})
        ax.margins(y=0.12)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.number(value)))
        ax.set_xticks(range(len(counts)), names,
                      rotation=90 if max(len(str(name)) for name in names) > 2 else 0)
        ax.axhline(counts.mean(), color="black", linewidth=0.7, linestyle=":", zorder=0)
        decorate(ax, "clase", "imágenes", title)
    return axes


def log_axis(axis, subs=(1, 2, 5)):
    """Make an axis logarithmic, with plain numbers at `subs` times 10^k; return it."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    return axis
