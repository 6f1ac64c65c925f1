"""Every check passes on a case made to pass, and fails on a case made to fail."""
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from helpers import attacks, datasets, jpeg
from helpers.attacks import float64, gradients
from helpers.report import tables
from helpers.study import checks

# Networks are masked on purpose here.
masked = pytest.mark.filterwarnings("ignore::helpers.attacks.gradients.ZeroGradient")

N, CLASSES = 40, 2  # of two classes, so that PGD has no second-best one to end at
PGD = {"eps": 0.1, "eps_iter": 0.025, "nb_iter": 8}


def _network(scale=1.0):
    """Return a linear Keras model of 8 x 8 images; `scale` multiplies its logits."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((8, 8, 1)), keras.layers.Rescaling(1.0, offset=-0.5), keras.layers.Flatten(),
        keras.layers.Dense(CLASSES, kernel_initializer="he_normal", name="dense"),
        keras.layers.Rescaling(scale)])


@pytest.fixture(scope="module")
def case():
    """A network, its scaled copy (margins of 110 to 600: masked), images, and right labels."""
    model = _network()
    x = np.random.default_rng(0).uniform(0, 1, (400, 8, 8, 1)).astype(np.float32)
    logits = gradients.logits(model, x)
    y = logits.argmax(axis=1)
    F = gradients.margins(logits, y)
    clear = np.flatnonzero((F > 0.11) & (F < 0.6))[:N]
    assert len(clear) == N
    return model, _network(1000.0), x[clear], y[clear]


def _outcomes(rows):
    return {row["check"]: row["passed"] for row in rows}


def test_a_table_has_the_columns_and_every_check_its_sentence(case):
    _, _, x, _ = case
    table = checks.as_table(checks.ball_and_box(x, x, eps=0.1), dataset="mnist", model="lenet")
    assert table.columns.tolist() == ["dataset", "model", "check", "value", "threshold", "passed"]
    assert table.passed.dtype == bool and table.passed.all() and (table.model == "lenet").all()
    assert checks.as_table([]).columns.tolist() == ["check", "value", "threshold", "passed"]
    assert tables.CHECKS.keys() == checks.BOUNDS.keys()


def test_kept_checks_are_computed_once(made):
    calls = []

    def rows():
        calls.append(1)
        return [checks.row("ball", 0.0), checks.row("clean_accuracy", 0.5), checks.row("monotone", 3.0)]

    first, again = (checks.kept({"network": "n", "n": 3}, rows, dataset="mnist", model="lenet")
                    for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, checks.as_table(rows(), dataset="mnist", model="lenet"),
                                  check_dtype=False)
    assert len(calls) == 2 and first.passed.dtype == bool and (
        tables.checks_by_network([first]) == tables.checks_by_network([again]))
    assert len(checks.kept({"network": "n", "n": 4}, rows, model="lenet")) == 3 and len(calls) == 3


def test_unmet_checks_are_told_once_each_with_where():
    good = checks.as_table([checks.row("ball", 0.0), checks.row("cw_success", 0.2)], dataset="mnist",
                           model="resnet")
    bad = [checks.as_table([checks.row("monotone", value), checks.row("ball", 0.0)], dataset="mnist",
                           model=model)
           for value, model in ((3.0, "lenet"), (np.nan, "resnet"))]
    assert tables.unmet_checks([good]) == "Se cumplen todas." == tables.unmet_checks([])
    one, two = tables.unmet_checks([good, bad[0]]), tables.unmet_checks([good, *bad])
    assert one.startswith("No se cumple una comprobación: ") and one.endswith(
        "umbral 0: 3 en la LeNet-5 en MNIST.")
    assert two.startswith("No se cumplen 2 comprobaciones: ") and two.count("umbral") == 1
    assert "3 en la LeNet-5 en MNIST y " in two and two.endswith("en la ResNet-20 en MNIST.")


def test_rows_at_their_thresholds_and_nan():
    assert checks.row("ball", 1e-6)["passed"] and not checks.row("ball", 1.1e-6)["passed"]
    assert not checks.row("more_iterations", 1.0)["passed"]
    assert checks.row("pgd_beats_fgsm", 0.99)["passed"]
    assert checks.row("masking_loss", 100 * (0.57 - 0.55))["passed"]  # 2.0000000000000018
    bounded = [check for check, bound in checks.BOUNDS.items() if bound]
    assert not any(checks.row(check, np.nan)["passed"] for check in bounded)
    reported = checks.row("cw_success", 0.2)
    assert reported["passed"] and np.isnan(reported["threshold"])


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_ball_and_box(case, norm):
    model, _, x, y = case
    x_adv = attacks.fgsm(model, x, y, eps=0.1, norm=norm)
    assert _outcomes(checks.ball_and_box(x, x_adv, eps=0.1, norm=norm)) == {"ball": True, "box": True}
    assert not _outcomes(checks.ball_and_box(x, x_adv, eps=0.099, norm=norm))["ball"]
    outside = x.copy()
    outside[3, 0, 0, 0] = 1.001
    assert not _outcomes(checks.ball_and_box(x, outside, eps=2.0, norm=norm))["box"]
    outside[3, 0, 0, 0] = np.nan
    assert not any(_outcomes(checks.ball_and_box(x, outside, eps=2.0, norm=norm)).values())


def test_zero_eps(case, monkeypatch):
    model, _, x, y = case
    y = np.where(np.arange(N) < 4, (y + 1) % CLASSES, y)
    accuracy, change = checks.zero_eps(model, x, y)
    assert accuracy["value"] == pytest.approx(0.9) and change["value"] == 0 and change["passed"]
    monkeypatch.setattr(attacks, "pgd", lambda model, x, y, **more: 1 - x)
    assert not checks.zero_eps(model, x, y)[1]["passed"]


def test_monotone_and_chance():
    eps = [0.0, 0.3, 0.1]  # in any order
    assert checks.monotone(eps, [0.99, 0.1, 0.5])[0]["value"] == pytest.approx(-40)
    risen, = checks.monotone(eps, [0.99, 0.52, 0.5])
    assert risen["value"] == pytest.approx(2) and not risen["passed"]
    assert checks.reaches_chance(0.1, 0.1)[0]["passed"] and checks.reaches_chance(0.3, 1 / 3)[0]["passed"]
    assert not checks.reaches_chance(0.11, 0.1)[0]["passed"]


@pytest.mark.parametrize("loss", gradients.LOSSES)
def test_pgd_beats_fgsm(case, loss):
    model, _, x, y = case
    x_fgsm = attacks.fgsm(model, x, y, eps=0.1)
    x_pgd = attacks.pgd(model, x, y, loss=loss, **PGD)
    good, = checks.pgd_beats_fgsm(model, x, y, x_fgsm=x_fgsm, x_pgd=x_pgd, loss=loss)
    x_pgd[:2] = x[:2]
    bad, = checks.pgd_beats_fgsm(model, x, y, x_fgsm=x_fgsm, x_pgd=x_pgd, loss=loss)
    assert good["passed"] and bad["value"] == pytest.approx(38 / 40) and not bad["passed"]


def test_more_iterations(case):
    model, _, x, y = case
    assert all(_outcomes(checks.more_iterations(model, x, y, loss="margin", **PGD)).values())
    few = {"eps": 0.3, "eps_iter": 0.002, "nb_iter": 1}
    assert not any(_outcomes(checks.more_iterations(model, x, y, loss="margin", **few)).values())
    constant = lambda images: tf.one_hot(tf.zeros(len(images), tf.int32), CLASSES) * 5
    rows = checks.more_iterations(model, x, y, loss="margin", scored=constant, **few)
    assert all(row["value"] == 0 for row in rows)


def test_order_of_attackers(case):
    model, _, x, y = case
    sets = {"white_box": attacks.pgd(model, x, y, **PGD), "noise": attacks.noise(x, eps=0.1, seed=0),
            "transfer": attacks.fgsm(model, x, y, eps=0.04)}
    assert all(_outcomes(checks.order_of_attackers(model, y, **sets)).values())
    worse = {**sets, "transfer": x, "noise": sets["white_box"]}
    assert _outcomes(checks.order_of_attackers(model, y, **worse)) == {"white_box_transfer": True,
                                                                       "transfer_noise": False}
    weak = {**sets, "white_box": x}
    assert not _outcomes(checks.order_of_attackers(model, y, **weak))["white_box_transfer"]


def test_survivors_are_combined_image_by_image(case):
    model, _, x, y = case
    broken = np.roll(np.arange(N) < 10, 7), np.roll(np.arange(N) < 10, 20)
    x_adv = attacks.pgd(model, x, y, eps=0.5, eps_iter=0.1, nb_iter=10)
    sets = [np.where(which[:, None, None, None], x_adv, x) for which in broken]
    assert np.array_equal(checks.survives(model, y, *sets), ~(broken[0] | broken[1]))


@masked
def test_gradient_free(case):
    model, masked, x, y = case
    good = attacks.pgd(model, x, y, loss="margin", **PGD)
    found, = checks.gradient_free(model, x, y, eps=0.1, sets=[good], nb_iter=100)
    assert found["value"] == 0 and found["passed"]
    blind = attacks.pgd(masked, x, y, loss="cross_entropy", **PGD)
    found, = checks.gradient_free(masked, x, y, eps=0.1, sets=[blind], nb_iter=100)
    assert found["value"] > 0 and not found["passed"]
    assert checks.gradient_free(masked, x, y, eps=0.1, sets=[blind, good], nb_iter=100)[0]["passed"]
    everything = attacks.pgd(model, x, y, eps=0.5, eps_iter=0.1, nb_iter=10)
    assert checks.gradient_free(model, x, y, eps=0.5, sets=[everything])[0]["value"] == 0


@masked
@pytest.mark.parametrize("norm, size", [(np.inf, 0.1), (2, 0.8)])
def test_masking(case, norm, size):
    model, masked, x, y = case
    arguments = {"eps": size, "eps_iter": size / 4, "nb_iter": 8, "norm": norm}
    assert all(_outcomes(checks.masking(model, x, y, **arguments)).values())
    assert not any(_outcomes(checks.masking(masked, x, y, **arguments)).values())
    callable_, wide = (lambda images: model(images)), float64.wide_copy(model)
    assert all(_outcomes(checks.masking(callable_, x, y, model64=wide, **arguments)).values())
    with pytest.raises(ValueError, match="a Keras model is needed"):
        checks.masking(callable_, x, y, **arguments)


def _exact(model, x, y, beyond=1.001):
    """Return images just beyond the boundary of a linear model, by its gradient."""
    z, g = gradients.function(model, "margin")(tf.constant(x), tf.constant(y))
    F = gradients.margin(y, z).numpy()
    size = np.square(g.numpy()).sum(axis=(1, 2, 3))
    return x + (beyond * F / size)[:, None, None, None] * g.numpy()


def test_carlini_wagner_rows(case):
    model, _, x, y = case
    x = 0.4 + 0.2 * x
    y = gradients.logits(model, x).argmax(axis=1)
    x_adv = _exact(model, x, y, beyond=1.5)
    rows = {row["check"]: row for row in checks.carlini_wagner_success(model, x, y, x_adv)}
    assert rows["cw_success"]["value"] == 1 and rows["cw_gap"]["passed"]
    assert rows["cw_rounded"]["value"] > 0.8
    assert rows["cw_l2_q50"]["value"] == pytest.approx(np.median(attacks.l2(x_adv - x)), rel=1e-5)
    confident = {row["check"]: row
                 for row in checks.carlini_wagner_success(model, x, y, x_adv, confidence=50)}
    assert not confident["cw_gap"]["passed"] and confident["cw_gap"]["value"] < -40
    target = gradients.logits(model, x_adv).argmax(axis=1)
    assert _outcomes(checks.carlini_wagner_success(model, x, target, x_adv, targeted=True))["cw_gap"]
    barely = _exact(model, x, y, beyond=1.0001)
    assert checks.carlini_wagner_success(model, x, y, barely)[1]["value"] < 0.8
    failed = {row["check"]: row for row in checks.carlini_wagner_success(model, x, y, x)}
    assert failed["cw_success"]["value"] == 0 and not failed["cw_gap"]["passed"]


def test_carlini_wagner_is_measured_where_the_model_was_right(case):
    model, _, x, y = case
    x_adv = _exact(model, x, y, beyond=1.5)
    mixed = np.where(np.arange(N) < 10, 1 - y, y)  # of the first 10 the model is wrong as it is
    x_adv[:10], x_adv[10:15] = x[:10], x[10:15]
    rows = {row["check"]: row for row in checks.carlini_wagner_success(model, x, mixed, x_adv)}
    assert rows["cw_success"]["value"] == pytest.approx(25 / 30)
    assert rows["cw_l2_q10"]["value"] >= attacks.l2(x_adv - x)[15:].min() > 0
    found = checks.adversarial_norms(model, x, mixed, x_adv)
    assert not found[:10].any() and np.isinf(found[10:15]).all()
    np.testing.assert_array_equal(found[15:], attacks.l2(x_adv - x)[15:])
    assert np.isinf(checks.adversarial_norms(model, x, mixed, x_adv, targeted=True)[15:]).all()


def test_more_search():
    few = np.array([1.0, 2.0, np.inf, np.inf])
    assert checks.more_search(few, [1.0, 1.5, 3.0, np.inf])[0]["passed"]
    risen, = checks.more_search(few, [1.0, 2.25, 3.0, np.inf])
    assert risen["value"] == 0.25 and not risen["passed"]
    assert not checks.more_search(few, [np.inf, 1.5, 3.0, 1.0])[0]["passed"]


def test_targets_and_untargeted():
    nearest = np.linspace(1, 2, 11)
    targeted = nearest[:, None] * np.linspace(1, 3, 9)[::-1]
    assert checks.targets_and_untargeted(targeted, nearest * 1.03)[0]["passed"]
    for factor in (0.9, 1.1):
        assert not checks.targets_and_untargeted(targeted, nearest * factor)[0]["passed"]
    far = nearest.copy()
    far[:5] *= 2  # fewer than half, which the median would not show
    assert not checks.targets_and_untargeted(targeted, far)[0]["passed"]
    targeted[0], far[1:5] = np.inf, nearest[1:5]  # a failure says nothing of the others
    assert checks.targets_and_untargeted(targeted, far)[0]["passed"]


def test_exact_on_linear():
    assert checks.exact_on_linear(_exact)[0]["passed"]
    assert checks.exact_on_linear(lambda *case: _exact(*case, beyond=1.01))[0]["value"] == (
        pytest.approx(0.01, abs=1e-3))
    assert not checks.exact_on_linear(lambda *case: _exact(*case, beyond=1.05))[0]["passed"]
    assert not checks.exact_on_linear(lambda model, x, y: x)[0]["passed"]


@masked
def test_not_fooled(case):
    model, _, x, y = case
    steep = _network(10.0)  # times 100: the masked one
    for loss, passed in (("margin", True), ("cross_entropy", False)):
        attack = lambda model, x, y: attacks.pgd(model, x, y, loss=loss, **PGD)
        assert checks.not_fooled(attack, steep, x, y)[0]["passed"] == passed


def test_jpeg_attackers(case):
    model, _, x, y = case
    x = np.round(255 * x) / np.float32(255)
    y = gradients.logits(model, jpeg.compress(x, 90)).argmax(axis=1)
    strong, weak = attacks.pgd(model, x, y, **PGD), x
    good = checks.jpeg_attackers(model, y, 90, x, blind=weak, aware={"identity": strong})
    assert _outcomes(good) == {"jpeg_aware": True} and good[0]["value"] < -10
    assert not _outcomes(checks.jpeg_attackers(model, y, 90, x, blind=strong,
                                               aware={"identity": weak}))["jpeg_aware"]
    both = {"identity": weak, "differentiable": strong}
    rows = checks.jpeg_attackers(model, y, 90, x, blind=strong, aware=both)
    assert rows[0]["value"] == 0 and rows[1]["check"] == "jpeg_score"
    real = (gradients.logits(model, jpeg.compress(strong, 90)).argmax(axis=1) == y).mean()
    soft = gradients.logits(jpeg.defended(model, 90), strong).argmax(axis=1) == y
    assert rows[1]["value"] == pytest.approx(100 * (real - soft.mean()))


def test_jpeg_draws_and_error():
    assert checks.jpeg_draws(0.3, 0.3)[0]["passed"] and not checks.jpeg_draws(0.31, 0.3)[0]["passed"]
    x = datasets.load("cifar10").x_test[:10]
    straight, cubic, largest = checks.jpeg_error(x, [90, 10])
    assert straight["passed"] and 0 < straight["value"] < cubic["value"] < largest["value"]
    worst = max(np.abs(jpeg.compress_differentiable(x, q) - jpeg.compress(x, q)).mean() for q in (10, 90))
    assert cubic["value"] == pytest.approx(255 * worst, rel=1e-5)


def test_a_codec_of_another_quality_fails(monkeypatch):
    x, real = datasets.load("cifar10").x_test[:10], jpeg.compress
    monkeypatch.setattr(jpeg, "compress", lambda x, quality, *more: real(x, 5, *more))
    assert not checks.jpeg_error(x, [50])[0]["passed"]
