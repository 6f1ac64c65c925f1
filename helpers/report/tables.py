"""Tables of the chapters: each function shows one, in Spanish, of facts that the study measured.

measured: dict of Recipe to (logits, y) of its first test images.
"""
import numpy as np

from helpers import datasets
from helpers.artifacts import store
from helpers.attacks import gradients
from helpers.report import text
from helpers.study import errors


def spread(values, decimals=2):
    """Return the median of values and, in brackets, their 5 and 95 percentiles, as text."""
    low, middle, high = (text.number(value, decimals) for value in np.percentile(values, [5, 50, 95]))
    return f"{middle} [{low}; {high}]"


def distances(scales):
    """Show the norms of images and the distances between them; scales: dict of a title to its Distances."""
    text.table([[title, len(scale.norm), *map(spread, scale)] for title, scale in scales.items()],
               ["conjunto", "$n$", "norma", "entre dos imágenes", "a la más cercana de otra clase"])


def recipes(chosen):
    """Show how networks are trained, a row each."""
    text.table([[text.network_name(r), r.train_size or datasets.record(r.dataset).full.train,
                 text.percent(r.validation_share, 0), r.epochs, r.batch_size, text.number(r.learning_rate, 2),
                 text.number(r.weight_decay, 3), f"±{r.shift} px", "sí" if r.flip else "no"] for r in chosen],
               ["red", "imágenes", "validación", "épocas", "lote", "tasa", "decaimiento", "desplaza",
                "refleja"])


def accuracies(table):
    """Show a table of study.accuracy.accuracy_table: accuracies with their intervals."""
    text.table([[datasets.record(row.dataset).title, text.NETWORKS[row.model], row.n,
                 text.with_interval(row.value, row.low, row.high)] for row in table.itertuples()],
               ["conjunto", "red", "$n$", "precisión"])


def error_beside_published(reported):
    """Show the error rate that a paper reports beside ours (study.errors.Reported); nothing for None."""
    if reported:
        text.published([[f"{text.network_name(reported.recipe)}, error en la prueba",
                         text.percent(reported.theirs),
                         text.with_interval(*reported.ours), f"[@{reported.source}]"]])


def calibrations(found):
    """Show how well networks know when to doubt; found: dict of Recipe to its study.errors.Calibration."""
    text.table([[text.network_name(recipe), text.with_interval(*one.error), text.percent(one.confidence),
                 text.percent(one.accuracy)] for recipe, one in found.items()],
               ["red", "ECE", "confianza media", "precisión"])


def margins(measured, vanishing):
    """Show how large networks' margins are, and the share beyond errors.VANISHING: dict of Recipe to it."""
    text.table([[text.network_name(recipe), len(y), spread(gradients.margins(logits, y)),
                 text.with_interval(*vanishing[recipe])] for recipe, (logits, y) in measured.items()],
               ["red", "$n$", "margen", f"más de {text.number(errors.VANISHING, 1)}"])


def provenance():
    """Show what the running notebook loaded and what it computed."""
    text.provenance(store.ledger())
