"""Tables of the chapters: each function shows one, in Spanish, of facts that the study measured.

measured: dict of Recipe to (logits, y) of its first test images.
"""
import numpy as np

from helpers import datasets
from helpers.artifacts import store
from helpers.attacks import gradients
from helpers.report import prose, text
from helpers.study import checks


CHECKS = {  # what the value of each of helpers.study.checks is, and its unit
    "ball": "Mayor exceso de una perturbación sobre el radio ε de la bola (unidades de píxel)",
    "box": "Mayor exceso de un píxel sobre el intervalo [0, 1] (unidades de píxel)",
    "clean_accuracy": "Precisión sin ataque (proporción)",
    "zero_eps": "Diferencia entre la precisión con ε = 0 y la precisión sin ataque (puntos)",
    "monotone": "Mayor aumento de la precisión robusta al crecer ε (puntos)",
    "chance": "Precisión robusta con el mayor ε, frente a la del azar (proporción)",
    "pgd_beats_fgsm": "Imágenes en que la pérdida de PGD iguala o supera a la de FGSM (proporción)",
    "more_iterations": "Cambio de la precisión robusta con el doble de iteraciones (puntos)",
    "more_restarts": "Cambio de la precisión robusta con un segundo inicio aleatorio (puntos)",
    "white_box_transfer": "Precisión con caja blanca menos precisión con transferencia (puntos)",
    "transfer_noise": "Precisión con transferencia menos precisión con ruido aleatorio (puntos)",
    "gradient_free": "Imágenes que vence el ataque Square y no los ataques por gradiente (imágenes)",
    "zero_gradient": "Imágenes en que el gradiente de la entropía cruzada es cero (proporción)",
    "masking_loss": "Diferencia de la precisión bajo PGD entre entropía cruzada y margen (puntos)",
    "masking_float64": "Diferencia de la precisión bajo FGSM entre 32 y 64 bits (puntos)",
    "cw_success": "Imágenes que el ataque de Carlini y Wagner vuelve adversarias (proporción)",
    "cw_rounded": "Ejemplos adversarios que lo siguen siendo al redondear a 8 bits (proporción)",
    "cw_gap": "Menor exceso de la ventaja de los logits sobre la confianza κ (logits)",
    "cw_l2_q10": "Cuantil 10 % de la norma L2 de las perturbaciones (unidades de píxel)",
    "cw_l2_q50": "Mediana de la norma L2 de las perturbaciones (unidades de píxel)",
    "cw_l2_q90": "Cuantil 90 % de la norma L2 de las perturbaciones (unidades de píxel)",
    "more_search": "Mayor aumento de la norma L2 con más pasos de búsqueda (unidades de píxel)",
    "targets_untargeted": "Desviación de 1 del cociente entre las normas L2 medias del objetivo más "
                          "cercano y del ataque sin objetivo",
    "linear_distance": "Mayor error relativo de la distancia a la frontera en un modelo lineal "
                       "(proporción)",
    "jpeg_aware": "Precisión ante quien conoce JPEG menos precisión ante quien no (puntos)",
    "jpeg_mixed": "Precisión ante quien promedia las calidades menos ante quien supone una (puntos)",
    "jpeg_score": "Precisión con el códec verdadero menos la que daría el diferenciable (puntos)",
    "jpeg_straight": "Error medio del códec diferenciable de redondeo recto, en la peor calidad (niveles)",
    "jpeg_differentiable": "Error medio del códec diferenciable cúbico, en la peor calidad (niveles)",
    "jpeg_largest": "Mayor error del códec diferenciable cúbico, en la peor calidad (niveles)",
    "logits_x100": "Cambio del éxito del ataque con los logits multiplicados por 100 (puntos)",
}


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
        row = [f"{text.network_name(reported.recipe)}, error en la prueba", text.percent(reported.theirs),
               text.with_interval(*reported.ours), f"[@{reported.source}]"]
        prose.show_text(text.markdown([row], text.PUBLISHED))


def calibrations(found):
    """Show how well networks know when to doubt; found: dict of Recipe to its study.errors.Calibration."""
    text.table([[text.network_name(recipe), text.with_interval(*one.error), text.percent(one.confidence),
                 text.percent(one.accuracy)] for recipe, one in found.items()],
               ["red", "ECE", "confianza media", "precisión"])


def margins(measured, vanishing):
    """Show how large networks' margins are, and the share beyond errors.VANISHING: dict of Recipe to it."""
    text.table([[text.network_name(recipe), len(y), spread(gradients.margins(logits, y)),
                 text.with_interval(*vanishing[recipe])] for recipe, (logits, y) in measured.items()],
               ["red", "$n$", "margen", "se redondea a cero"])


def provenance():
    """Show what the running notebook loaded and what it computed."""
    text.provenance(store.ledger())


def checks_by_network(tables):
    """Return tables of several networks side by side: rows (text, bound, a value for each of them).

    A value that fails its check is in bold (Markdown); what was not checked on a network is "–".
    """
    indexed = [table.drop_duplicates("check").set_index("check") for table in tables]
    rows = []
    for check in checks.BOUNDS:
        found = [table.loc[check] if check in table.index else None for table in indexed]
        known = [one for one in found if one is not None]
        if known:
            sign = checks.BOUNDS[check][0] if checks.BOUNDS[check] else "–"
            bounds = {text.significant(one.threshold) for one in known} if checks.BOUNDS[check] else {""}
            rows.append([CHECKS[check], f"{sign} {' o '.join(sorted(bounds))}".strip(),
                         *("–" if one is None else text.significant(one.value) if one.passed
                           else f"**{text.significant(one.value)}**" for one in found)])
    return rows


def unmet_checks(tables):
    """Return a Spanish sentence with the checks that failed in these tables, each once, and where."""
    failed = {}
    for table in tables:
        for row in table[~table.passed.astype(bool)].itertuples():
            failed.setdefault((row.check, row.threshold), []).append(
                f"{text.significant(row.value)} en la {text.network_name(row)}")
    many = sum(map(len, failed.values()))
    if not many:
        return "Se cumplen todas."
    said = [f"{CHECKS[check][0].lower()}{CHECKS[check][1:]}, umbral {text.significant(bound)}: "
            f"{text.listing(found)}" for (check, bound), found in failed.items()]
    which = "cumple una comprobación" if many == 1 else f"cumplen {many} comprobaciones"
    return f"No se {which}: {'; '.join(said)}."
