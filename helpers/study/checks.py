"""The checks that every claim of robustness must pass. After Carlini et al. 2019, arXiv:1902.06705.

Each function returns rows, dicts of check, value, threshold and passed; `as_table` joins them. What a
value is, and its unit, the report says to its readers. A failed check is a row, not an exception; a NaN
fails. Rows that only report a number have the threshold NaN and pass. Points are those of a percentage.
"""
import operator

import numpy as np
import pandas as pd
import tensorflow as tf

from helpers import attacks, jpeg
from helpers.artifacts import store
from helpers.attacks import float64, gradients

COLUMNS = ["check", "value", "threshold", "passed"]
COMPARISONS = {"≤": operator.le, "<": operator.lt, "≥": operator.ge}
BOUNDS = {  # check: how its value must compare with its threshold; None, reported only
    "ball": ("≤", 1e-6), "box": ("≤", 1e-6), "clean_accuracy": None, "zero_eps": ("≤", 0.0),
    "monotone": ("≤", 0.0), "chance": ("≤", 0.1), "pgd_beats_fgsm": ("≥", 0.99),
    "more_iterations": ("<", 1.0), "more_restarts": ("<", 1.0),
    "white_box_transfer": ("≤", 0.0), "transfer_noise": ("≤", 0.0), "gradient_free": ("≤", 0.0),
    "zero_gradient": ("<", 0.01), "masking_loss": ("≤", 2.0), "masking_float64": ("≤", 2.0),
    "cw_success": None, "cw_rounded": None, "cw_gap": ("≥", -1e-4),  # rounding of the logits
    "cw_l2_q10": None, "cw_l2_q50": None, "cw_l2_q90": None, "more_search": ("≤", 1e-6),
    # Two searches for the same minimum: implementations of C&W differ by up to 3 % on our networks.
    "targets_untargeted": ("≤", 0.05), "linear_distance": ("≤", 0.02), "logits_x100": ("≤", 1.0),
    "jpeg_aware": ("≤", 0.0), "jpeg_mixed": ("≤", 0.0), "jpeg_score": None,
    "jpeg_straight": ("≤", 0.5), "jpeg_differentiable": None, "jpeg_largest": None,
}


def as_table(rows, **measured_on):
    """Return rows as a DataFrame: a column for each of `measured_on`, then those of the checks."""
    return pd.DataFrame([{**measured_on, **row} for row in rows], columns=[*measured_on, *COLUMNS])


def bounds_as_kept():
    """Return BOUNDS as JSON holds them: part of what kept checks depend on."""
    return {check: list(bound) if bound else None for check, bound in BOUNDS.items()}


def kept(parameters, rows, **measured_on):
    """Return the `as_table` of the checks rows(), which is kept as an artifact of these parameters.

    parameters: dict that JSON can hold, of all that the checks depend on. rows(): returns the rows; minutes.
    On loading only what follows is proved: thresholds, and what has passed. Values are for `verify`. A column
    that is no check's, as old artifacts have, is left out.
    """
    def make():
        found = as_table(rows())
        return {name: found[name].to_numpy(None if found[name].dtype in (float, bool) else str)
                for name in found}

    def check(found):
        if not follows(pd.DataFrame(found)):
            raise ValueError(f"the kept checks of {measured_on} do not follow from their values: "
                             "delete the artifact to have them made again")

    found = pd.DataFrame(store.cached("checks", parameters, make, check=check))
    return found[COLUMNS].assign(**measured_on)[[*measured_on, *COLUMNS]]


def follows(found):
    """Return whether a `as_table` of checks has BOUNDS as thresholds, and has passed what its values say."""
    if not set(COLUMNS) <= set(found) or not set(found.check) <= set(BOUNDS):
        return False
    expected = as_table([row(check, value) for check, value in zip(found.check, found.value)])
    return bool(len(found)) and all(np.array_equal(found[name], expected[name], equal_nan=name == "threshold")
                                    for name in ("threshold", "passed"))


def row(check, value, threshold=None):
    """Return the row of one check; threshold: None takes that of BOUNDS."""
    value = round(float(value), 9) + 0.0  # so that 2 points are not 2.0000000000000018, nor 0 -0.0
    if BOUNDS[check] is None:
        return {"check": check, "value": value, "threshold": np.nan, "passed": True}
    sign, usual = BOUNDS[check]
    threshold = float(usual if threshold is None else threshold)
    return {"check": check, "value": value, "threshold": threshold,
            "passed": COMPARISONS[sign](value, round(threshold, 9))}


def survives(model, y, *sets):
    """Return where the model is right on all of these sets of images, bool (N,).

    So attacks are combined image by image, and never by the smaller mean.
    """
    return np.logical_and.reduce([gradients.logits(model, x).argmax(axis=1) == y for x in sets])


def ball_and_box(x, x_adv, *, eps, norm=np.inf):
    """Check that no perturbation exceeds the ball of radius eps, nor an image the box [0, 1]."""
    delta = np.asarray(x_adv, np.float64) - x
    size = attacks.linf(delta) if norm == np.inf else attacks.l2(delta)
    return [row("ball", np.max(size - eps)), row("box", max(-np.min(x_adv), np.max(x_adv) - 1))]


def zero_eps(model, x, y, *, norm=np.inf):
    """Report the clean accuracy and check that an attack of eps = 0 leaves it."""
    clean = survives(model, y, x).mean()
    x_adv = attacks.pgd(model, x, y, eps=0.0, eps_iter=0.01, nb_iter=3, norm=norm)
    return [row("clean_accuracy", clean),
            row("zero_eps", 100 * abs(survives(model, y, x_adv).mean() - clean))]


def monotone(eps, accuracies):
    """Check that the accuracy under the worst of all attacks never rises with eps; (K,) each."""
    return [row("monotone", 100 * np.diff(np.asarray(accuracies)[np.argsort(eps)]).max())]


def reaches_chance(accuracy, chance):
    """Check that the accuracy under attack at the largest eps is no better than a guess."""
    return [row("chance", accuracy, chance)]


def pgd_beats_fgsm(model, x, y, *, x_fgsm, x_pgd, loss="margin"):
    """Check image by image that the loss under PGD is no smaller than under FGSM.

    loss: the margin by default, by which attacks.pgd chooses the best iterate. Differences of 1e-4
    of the loss, which rounding makes, do not count.
    """
    x, y = gradients.checked(model, x, y, loss)
    fgsm, pgd = (gradients.LOSSES[loss](y, tf.constant(gradients.logits(model, images))).numpy()
                 for images in (x_fgsm, x_pgd))
    return [row("pgd_beats_fgsm", np.mean(pgd >= fgsm - 1e-4 * np.maximum(1, np.abs(fgsm))))]


def more_iterations(model, x, y, *, nb_iter, scored=None, **attack):
    """Check that neither twice the iterations of PGD nor a second start changes the accuracy.

    attack: eps, eps_iter and the other arguments of attacks.pgd but `restarts`. scored: the model that
    answers, where the attacked one only stands for it.
    """
    usual, longer, again = (
        survives(scored or model, y, attacks.pgd(model, x, y, nb_iter=n, restarts=restarts, **attack)).mean()
        for n, restarts in ((nb_iter, 1), (2 * nb_iter, 1), (nb_iter, 2)))
    return [row("more_iterations", 100 * abs(longer - usual)),
            row("more_restarts", 100 * abs(again - usual))]


def order_of_attackers(model, y, *, white_box, transfer, noise):
    """Check that accuracy is lowest under the attacker who knows most, and highest under noise.

    white_box, transfer, noise: the images (N, H, W, C) of each, of the same eps.
    """
    white_box, transfer, noise = (100 * survives(model, y, images).mean()
                                  for images in (white_box, transfer, noise))
    return [row("white_box_transfer", white_box - transfer), row("transfer_noise", transfer - noise)]


def gradient_free(model, x, y, *, eps, sets, nb_iter=1000, seed=0):
    """Check that the Square attack breaks no image that the gradient attacks leave.

    sets: the images of each gradient attack, combined image by image; L-infinity.
    """
    left = survives(model, y, x, *sets)
    if not left.any():
        return [row("gradient_free", 0)]
    x_adv = attacks.square(model, x[left], y[left], eps=eps, nb_iter=nb_iter, seed=seed)
    return [row("gradient_free", np.sum(~survives(model, y[left], x_adv)))]


def masking(model, x, y, *, eps, eps_iter, nb_iter, norm=np.inf, seed=0, model64=None):
    """Check that gradients are not masked, by large margins above all.

    Three signs: gradients of the cross-entropy that are zero throughout; another accuracy under PGD
    with the margin as its loss, which does not saturate; another under FGSM with the gradient in
    float64. model64: the model in float64; None makes it of a Keras model (float64.wide_copy).
    """
    x, y = gradients.checked(model, x, y)
    zero = ~np.any(gradients.slopes(model, x, y, "cross_entropy"), axis=(1, 2, 3))
    pgd = [survives(model, y, attacks.pgd(model, x, y, eps=eps, eps_iter=eps_iter, nb_iter=nb_iter,
                                          norm=norm, seed=seed, loss=loss)).mean()
           for loss in ("cross_entropy", "margin")]
    x_32 = attacks.fgsm(model, x, y, eps=eps, norm=norm)
    x_64 = float64.wide_fgsm(float64.wide_copy(model) if model64 is None else model64, x, y,
                             eps=eps, norm=norm)
    fgsm = [survives(model, y, images).mean() for images in (x_32, x_64)]
    return [row("zero_gradient", np.mean(zero)),
            row("masking_loss", 100 * abs(pgd[0] - pgd[1])),
            row("masking_float64", 100 * abs(fgsm[0] - fgsm[1]))]


def adversarial_norms(model, x, y, x_adv, *, targeted=False):
    """Return the L2 norm of each perturbation, (N,), infinite where the image is not adversarial.

    y: true labels, or targets if `targeted`.
    """
    adversarial = _gap(model, x_adv, y, targeted) > 0
    return np.where(adversarial, attacks.l2(x_adv - x), np.inf)


def carlini_wagner_success(model, x, y, x_adv, *, confidence=0.0, targeted=False):
    """Check that every success has a gap of at least the confidence; report shares and quantiles.

    y: true labels, or targets if `targeted`. A success is an image that was not adversarial and
    becomes so; the share is of the images that were not. Rounded is the share of successes that are
    still adversarial as uint8. Quantiles of the L2 norm are over the successes.
    """
    able = _gap(model, x, y, targeted) <= 0
    gap = _gap(model, x_adv, y, targeted)
    done = able & (gap > 0)
    if not done.any():
        return [row("cw_success", 0), row("cw_rounded", np.nan), row("cw_gap", np.nan)]
    rounded = _gap(model, np.round(x_adv[done] * 255) / 255, y[done], targeted) > 0
    return [row("cw_success", done.sum() / able.sum()), row("cw_rounded", rounded.mean()),
            row("cw_gap", np.min(gap[done] - confidence)),
            *(row(f"cw_l2_q{q}", np.percentile(attacks.l2(x_adv - x)[done], q))
              for q in (10, 50, 90))]


def more_search(l2_few, l2_many):
    """Check that more search steps never give a larger L2 norm; (N,), of `adversarial_norms`."""
    few, many = np.asarray(l2_few, float), np.asarray(l2_many, float)
    rise = np.subtract(many, few, out=np.zeros(len(few)), where=many != few)  # inf - inf is 0 here
    return [row("more_search", rise.max())]


def targets_and_untargeted(l2_targeted, l2_untargeted):
    """Check that the nearest of the targets is as far as the untargeted attack goes, in the mean.

    l2_targeted: (N, classes - 1), l2_untargeted: (N,), both of `adversarial_norms` and of images that the
    model has right. Exact searches would find the same.
    """
    nearest, free = np.min(l2_targeted, axis=1), np.asarray(l2_untargeted)
    found = np.isfinite(nearest) & np.isfinite(free)
    if not found.any():
        return [row("targets_untargeted", np.nan)]
    return [row("targets_untargeted", abs(nearest[found].mean() / free[found].mean() - 1))]


def exact_on_linear(attack, *, n=32, seed=0):
    """Check an attack of least norm on a random linear model: its L2 norm is |F| / ||grad F||.

    attack: (model, x, y) -> x_adv, untargeted. Two classes, images 8 x 8 x 1 around grey, from which
    the boundary is at about 0.5, so that the box does not bind.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, (8, 8, 1, 2)).astype(np.float32)
    x = rng.uniform(0.4, 0.6, (n, 8, 8, 1)).astype(np.float32)
    size = np.linalg.norm(weights[..., 0] - weights[..., 1])
    bias = np.float32([0.5 * size, 0]) - np.tensordot(np.full((8, 8, 1), 0.5, np.float32), weights, 3)
    model = lambda images: tf.tensordot(images, tf.constant(weights), 3) + bias
    F = gradients.logits(model, x) @ [1, -1]
    exact, x_adv = np.abs(F) / size, attack(model, x, np.where(F > 0, 0, 1))
    return [row("linear_distance", np.max(np.abs(attacks.l2(x_adv - x) / exact - 1)))]


def not_fooled(attack, model, x, y):
    """Check that an attack succeeds as often where all logits are multiplied by 100.

    attack: (model, x, y) -> x_adv. That changes no answer of the model, but hides the gradient of
    the cross-entropy.
    """
    masked = lambda images: 100 * gradients.call(model, images)
    plain, hidden = (survives(model, y, attack(victim, x, y)).mean() for victim in (model, masked))
    return [row("logits_x100", 100 * abs(plain - hidden))]


def jpeg_attackers(model, y, quality, x, *, blind, aware):
    """Check that who knows of JPEG breaks at least what who does not breaks; all on the real codec.

    x: the images as they are. blind: attacked images; aware: how (as in jpeg.defended) -> attacked
    images. The aware ones are combined image by image. Reported: by how much the accuracy under the
    differentiable attacker would be underestimated if it were scored on the differentiable codec.
    """
    def right(images):
        return survives(model, y, jpeg.compress(images, quality))
    left = {how: right(images) for how, images in aware.items()}
    best = np.logical_and.reduce([right(x), *left.values()])
    rows = [row("jpeg_aware", 100 * (best.mean() - right(blind).mean()))]
    if "differentiable" in aware:
        proxy = survives(jpeg.defended(model, quality, "differentiable"), y, aware["differentiable"])
        rows.append(row("jpeg_score", 100 * (left["differentiable"].mean() - proxy.mean())))
    return rows


def jpeg_draws(accuracy_mixed, accuracy_one):
    """Check that the expectation over the defender's qualities is no weaker than a guess of one."""
    return [row("jpeg_mixed", 100 * (accuracy_mixed - accuracy_one))]


def jpeg_error(x, qualities):
    """Check the differentiable codec against the real one, over these qualities: in levels of 0..255.

    With straight rounding the mean error must be small; with the cubic, which is off by design, the
    mean and the largest error are reported: each the worst of the qualities.
    """
    straight, cubic = ([codec_error(x, q, rounding) for q in qualities] for rounding in ("straight", "cubic"))
    return [row("jpeg_straight", max(mean for mean, _ in straight)),
            row("jpeg_differentiable", max(mean for mean, _ in cubic)),
            row("jpeg_largest", max(largest for _, largest in cubic))]


def codec_error(x, quality, rounding):
    """Return the (mean, largest) error of the differentiable codec, in levels of 0..255."""
    soft = jpeg.compress_differentiable(x, quality, rounding=rounding).numpy()
    error = 255 * np.abs(soft - jpeg.compress(x, quality))
    return error.mean(), error.max()


def _gap(model, x, y, targeted):
    """Return by how much the attacker wins, in logits; negative where he does not."""
    F = gradients.margins(gradients.logits(model, x), y)
    return F if targeted else -F
