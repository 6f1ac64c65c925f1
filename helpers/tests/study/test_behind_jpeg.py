"""What is kept of networks behind JPEG is what they answer, and a forgery of it is found."""
import itertools

import numpy as np
import pytest
import tensorflow as tf

from helpers import attacks, datasets, jpeg, networks
from helpers.artifacts import store
from helpers.attacks import gradients
from helpers.jpeg import attacker
from helpers.study import behind_jpeg, under_attack
from helpers.tests import forgery

RECIPE = networks.RECIPES["mnist", "lenet"]
N = 20


@pytest.fixture(autouse=True)
def all_proved(monkeypatch):
    """Let chance leave no artifact unproved."""
    monkeypatch.setattr(behind_jpeg, "PROVED", 1)


@pytest.fixture
def case(lenet):
    data = datasets.load("mnist")
    return lenet, data.x_test[:N], data.y_test[:N]


def _in_record(monkeypatch, **fields):
    """Let the record of MNIST have these fields."""
    monkeypatch.setitem(datasets.RECORDS, "mnist", datasets.record("mnist")._replace(**fields))


@pytest.fixture
def short(monkeypatch):
    """Shorter ladders and attacks; everything goes to the test's own folder."""
    monkeypatch.setattr(under_attack, "NB_ITER", 5)
    _in_record(monkeypatch, ladders={np.inf: (0, 0.1, 0.3), 2: (0, 1, 4)}, jpeg_ladder=(0, 0.1, 0.3),
               drawn_radii=(0, 0.1, 0.3))
    monkeypatch.setattr(behind_jpeg, "DRAWS", 2)
    monkeypatch.setattr(attacker, "NB_ITER", 10)


def _behind(model, x, quality):
    return gradients.logits(model, jpeg.compress(x, quality) if quality else x).argmax(axis=1)


def test_clean_and_blind_answers_are_those_behind_the_real_codec(short, case):
    model, x, y = case
    kept = behind_jpeg.clean(RECIPE, n=N)
    for quality, answer in zip(kept["quality"], kept["answer"], strict=True):
        assert np.array_equal(answer, _behind(model, x, int(quality)))
    kept = behind_jpeg.blind(RECIPE, "fgsm", norm=np.inf, n=N)
    x_adv = under_attack.attacked(model, x, y, "fgsm", eps=0.3)
    for quality, answer in zip(kept["quality"], kept["answer"][2], strict=True):
        assert np.array_equal(answer, _behind(model, x_adv, int(quality)))
    assert np.array_equal(kept["answer"][0, 0], _behind(model, x, 0))


@pytest.mark.parametrize("how", behind_jpeg.AWARE)
def test_what_the_aware_attacker_broke_stays_broken(short, case, how):
    model, x, y = case
    kept = behind_jpeg.aware(RECIPE, how, 50, n=N)
    right = kept["answer"] == y
    assert np.array_equal(kept["answer"][0], _behind(model, x, 50))
    assert (right[1:] <= right[:-1]).all() and right[-1].mean() < right[0].mean()
    blind = behind_jpeg.blind(RECIPE, "pgd_margin", norm=np.inf, n=N)["answer"]
    column = behind_jpeg.QUALITIES.index(50)
    assert right[-1].sum() <= (blind[-1, column] == y).sum()


@pytest.mark.parametrize("who", ["blind", "one identity", "mixed differentiable"])
def test_draws_differ_and_repeat(short, case, who):
    model, x, y = case
    kept = behind_jpeg.quality_drawn(RECIPE, who, n=N)
    assert kept["image"].shape == kept["block"].shape == (3, 2, N)
    assert np.mean(kept["image"][0] == y) > 0.9 and np.mean(kept["block"][0] == y) > 0.9
    assert np.mean(kept["image"][2] == y) < 0.9
    again = behind_jpeg.quality_drawn(RECIPE, who, n=N)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    with pytest.raises(ValueError, match="attacker must be one of blind, one identity, .*, got 'all'"):
        behind_jpeg.quality_drawn(RECIPE, "all", n=N)


def test_quality_0_is_the_network_alone(short, case):
    model, x, y = case
    kept = behind_jpeg.aware(RECIPE, "identity", 0, n=N)
    assert np.array_equal(kept["answer"][0], gradients.logits(model, x).argmax(axis=1))
    x_adv = attacker.aware_pgd(model, x, y, eps=0.1, seed=0)
    broken = (gradients.logits(model, x_adv).argmax(axis=1) != y) & (kept["answer"][0] == y)
    assert np.array_equal(kept["answer"][1] != y, broken | (kept["answer"][0] != y))


def test_a_perturbation_is_lengthened_until_the_real_codec_lets_it_through(case):
    model, x, y = case
    short = x + np.float32(0.5) * (attacks.pgd(model, x, y, eps=0.3, eps_iter=0.02, nb_iter=20, seed=0) - x)
    l2 = behind_jpeg._reach(model, x, short, y, 25)
    found = np.isfinite(l2)
    assert found.any() and (l2[found] >= attacks.l2(short - x)[found] - 1e-4).all()
    longest = np.clip(x + 4 * (short - x), 0, 1)
    assert (_behind(model, longest, 25)[~found] == y[~found]).all()
    assert np.isinf(behind_jpeg._reach(model, x, x, y, 25)).all()


PERFECT = [  # what makes each kind, and its arrays of a defence that nothing breaks
    ("jpeg_clean", lambda: behind_jpeg.clean(RECIPE, n=N), {"answer": (1, N)}),
    ("jpeg_blind", lambda: behind_jpeg.blind(RECIPE, "pgd_margin", norm=np.inf, n=N), {"answer": (3, 6, N)}),
    ("jpeg_aware", lambda: behind_jpeg.aware(RECIPE, "differentiable", 50, n=N), {"answer": (3, N)}),
    ("jpeg_drawn", lambda: behind_jpeg.quality_drawn(RECIPE, "one identity", n=N),
     {"image": (3, 2, N), "block": (3, 2, N)})]
RECOMPUTE = {"jpeg_clean": behind_jpeg.recompute_jpeg_clean, "jpeg_blind": behind_jpeg.recompute_jpeg_blind,
             "jpeg_aware": behind_jpeg.recompute_jpeg_aware, "jpeg_drawn": behind_jpeg.recompute_jpeg_drawn,
             "jpeg_distances": behind_jpeg.recompute_jpeg_distances}


def _kept(made, kind):
    path, = made.rglob(kind + "-*.npz")
    return path, store.read_record(path)["parameters"], store.read(path)


def _forged(made, kind, **changed):
    """Change arrays of a kept artifact, with a record that says so; return what is kept now."""
    path, parameters, kept = _kept(made, kind)
    store.write(path, lambda partial: np.savez_compressed(partial, **kept | changed), parameters, 1.0)
    return parameters, kept | changed


def _outcomes(kind, parameters, kept, most=20):
    rng = np.random.default_rng(0)
    return [agrees for *_, agrees in itertools.islice(RECOMPUTE[kind](parameters, kept, rng), most)]


@pytest.mark.parametrize("kind, make, shapes", PERFECT, ids=[kind for kind, *_ in PERFECT])
def test_a_forged_perfect_defence_is_refused(made, short, case, monkeypatch, kind, make, shapes):
    # At one radius, at which an attack breaks most of so few images: of a smaller one a quarter may differ.
    _in_record(monkeypatch, ladders={np.inf: (0, 0.3), 2: (0, 4)}, jpeg_ladder=(0, 0.3), drawn_radii=(0, 0.3))
    first = make()
    assert all(np.array_equal(first[name], value) for name, value in make().items())  # loaded: it is proved
    path, parameters, kept = _kept(made, kind)
    assert set(_outcomes(kind, parameters, kept)) == {True}
    perfect = {name: np.broadcast_to(kept["y"], kept[name].shape).astype(np.int8) for name in shapes}
    if kind == "jpeg_clean":
        # Behind JPEG, the network of MNIST is nearly perfect.
        perfect["answer"] = (perfect["answer"] + 1) % 10
    forged = _forged(made, kind, **perfect)
    assert False in _outcomes(kind, *forged)
    with pytest.raises(ValueError, match="answers behind JPEG of .* are not those that it computes: delete"):
        make()


def test_a_share_is_proved_each_time_and_the_images_always(made, short, case, monkeypatch):
    behind_jpeg.clean(RECIPE, n=N)
    _, parameters, kept = _kept(made, "jpeg_clean")
    _forged(made, "jpeg_clean", answer=(kept["answer"] + 1) % 10)
    monkeypatch.setattr(behind_jpeg, "PROVED", 0.5)
    refused = 0
    for _ in range(20):
        try:
            behind_jpeg.clean(RECIPE, n=N)
        except ValueError:
            refused += 1
    assert 0 < refused < 20
    monkeypatch.setattr(behind_jpeg, "PROVED", 0)
    _forged(made, "jpeg_clean", y=(kept["y"] + 1) % 10)
    with pytest.raises(ValueError, match="images and qualities"):
        behind_jpeg.clean(RECIPE, n=N)


def test_answers_that_are_another_attacks_are_found(made, short, case):
    behind_jpeg.blind(RECIPE, "noise", norm=np.inf, n=N)
    path, _, noise = _kept(made, "jpeg_blind")
    path.unlink(), store.record_path(path).unlink()
    behind_jpeg.blind(RECIPE, "pgd_margin", norm=np.inf, n=N)
    assert False in _outcomes("jpeg_blind", *_forged(made, "jpeg_blind", answer=noise["answer"]))


@pytest.mark.parametrize("factor", [0, 1e-6, 3])
def test_forged_distances_are_found(made, case, factor):
    kept = behind_jpeg.least_distances(RECIPE, 25, n=4)
    assert np.array_equal(kept["answer"], kept["y"])
    assert (kept["l2"] > 0).all() and np.isfinite(kept["l2"]).all()
    assert set(_outcomes("jpeg_distances", *_kept(made, "jpeg_distances")[1:], most=4)) == {True}
    assert np.array_equal(behind_jpeg.least_distances(RECIPE, 25, n=4)["l2"], kept["l2"])
    forged = _forged(made, "jpeg_distances", l2=kept["l2"] * factor)
    assert False in _outcomes("jpeg_distances", *forged, most=4)
    if factor != 1e-6:  # that none is so near, only a whole search shows
        with pytest.raises(ValueError, match="are not those that it computes"):
            behind_jpeg.least_distances(RECIPE, 25, n=4)


@pytest.mark.parametrize("make", [
    lambda n: behind_jpeg.clean(RECIPE, n=n),
    lambda n: behind_jpeg.blind(RECIPE, "pgd_margin", norm=np.inf, n=n),
    lambda n: behind_jpeg.blind(RECIPE, "noise", norm=2, n=n),
    lambda n: behind_jpeg.aware(RECIPE, "identity", 50, n=n),
    lambda n: behind_jpeg.quality_drawn(RECIPE, "mixed identity", n=n)])
def test_fewer_images_are_the_first_of_those_kept(made, short, case, monkeypatch, make):
    many = make(N)
    few, count = make(7), len(list(made.rglob("jpeg_*.npz")))
    assert count == 1  # nothing was computed
    for path in forgery.kept_files(made):
        path.unlink()
    anew = make(7)
    assert few.keys() == anew.keys() == many.keys()
    assert all(np.array_equal(few[name], anew[name]) for name in few)


def test_all_that_decides_an_artifact_is_in_its_key(made, short, case, monkeypatch):
    def keys():
        behind_jpeg.blind(RECIPE, "pgd_margin", norm=np.inf, n=2)
        behind_jpeg.aware(RECIPE, "identity", 50, n=2)
        behind_jpeg.quality_drawn(RECIPE, "one identity", n=2)
        return {path.stem for path in made.rglob("jpeg_*.npz")}

    for change in ((attacker, "NB_ITER", 3), (attacker, "STRIDE", 0.5),
                   (behind_jpeg, "DRAWN", (30, 60)), (behind_jpeg, "DRAWS", 1),
                   (behind_jpeg, "QUALITIES", (0, 50)), (under_attack, "NB_ITER", 2),
                   (under_attack, "STRIDE", 2.0)):
        before = keys()
        monkeypatch.setattr(*change)
        assert keys() > before, change
    for field, radii in (("jpeg_ladder", (0, 0.2)), ("drawn_radii", (0, 0.2)),
                         ("ladders", {np.inf: (0, 0.2)})):
        before = keys()
        _in_record(monkeypatch, **{field: radii})
        assert keys() > before, field


def test_other_settings_cannot_be_recomputed_here(made, short, case, monkeypatch):
    behind_jpeg.aware(RECIPE, "identity", 50, n=2)
    _, parameters, kept = _kept(made, "jpeg_aware")
    monkeypatch.setattr(attacker, "NB_ITER", 3)
    with pytest.raises(store.NotHere, match="other settings"):
        next(behind_jpeg.recompute_jpeg_aware(parameters, kept, np.random.default_rng()))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_confined_step_has_its_norm_and_keeps_to_its_coefficients(name):
    x = (0.25 + 0.5 * datasets.load(name).x_test[:5]).astype(np.float32)
    weights = np.random.default_rng(0).normal(0, 1, (x[0].size, 10)).astype(np.float32)
    model = lambda images: tf.reshape(images, (-1, len(weights))) @ weights
    y = gradients.logits(model, x).argmax(axis=1)
    passing = [np.zeros((8, 8), np.float32) for _ in range(1 if name == "mnist" else 3)]
    passing[0][:2, :2] = 1
    x_adv = behind_jpeg.confined(model, x, y, passing, eps=0.05)
    np.testing.assert_allclose(attacks.l2(x_adv - x), 0.05, rtol=1e-3)
    luma = jpeg.coefficients(x_adv - x)[0][:, :3, :3]
    assert np.abs(luma[..., 2:, :]).max() < 1e-3 * np.abs(luma[..., :2, :2]).max()
    before, after = (gradients.margins(gradients.logits(model, images), y) for images in (x, x_adv))
    assert (after < before).all()
