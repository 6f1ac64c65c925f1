"""What adversarial training shows the network, by hand on a linear one, and what it keeps."""
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from helpers import networks
from helpers.networks import adversarial, batches, training
from helpers.tests import forgery

RECIPE = networks.Recipe("mnist", "lenet", epochs=4, train_size=300, warmup_epochs=2, eps=0.1)
N, SHAPE = 300, (6, 6, 1)  # of batches of 128: the last has 44


@pytest.fixture(scope="module")
def case():
    """A linear model of two classes, images whose pixels are 0, 1/2 or 1, and labels."""
    weights = np.random.default_rng(0).normal(0, 0.1, (36, 2)).astype(np.float32)
    x = np.random.default_rng(1).choice(np.float32([0, 0.5, 1]), (N, *SHAPE))
    return lambda x: tf.reshape(x, (-1, 36)) @ weights, weights, x, np.arange(N) % 2


def _shown(case, epoch, i, **more):
    """Return (delta, x, sign of the gradient of the loss, labels) of batch i of an epoch."""
    model, weights, x, y = case
    epoch = batches.Batches(x, y, dataclasses.replace(RECIPE, **more), epoch)
    x, y = epoch[i]
    x_adv, labels = adversarial.batch(model, epoch, i)
    assert x_adv.dtype == tf.float32 and np.array_equal(labels, y)
    assert np.array_equal(x_adv, adversarial.batch(model, epoch, i)[0])
    assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1
    sign = np.sign(weights[:, 1 - y] - weights[:, y]).T.reshape(x.shape)  # towards the other class
    return x_adv.numpy() - x, x, sign, y


def test_one_step_goes_eps_beyond_uniform_noise_of_twice_eps(case):
    delta, x, sign, _ = _shown(case, 3, 0)
    noise = (delta - 0.1 * sign)[x == 0.5] / 0.2
    assert np.abs(noise).max() <= 1 + 1e-5 and np.abs(delta).max() <= 0.3 + 1e-6
    assert np.abs(np.quantile(noise, [0.1, 0.5, 0.9]) - [-0.8, 0, 0.8]).max() < 0.1
    kept = (x == 1) & (sign < 0)  # noise that would leave the box is cut before the step
    np.testing.assert_allclose(delta[kept].max(), -0.1, atol=1e-6)


def test_several_steps_reach_the_corner_of_the_ball(case):
    for nb_iter in (2, 5):  # 2.5 eps of steps, of the at most 2 eps that there are from the start
        delta, x, sign, _ = _shown(case, 3, 1, nb_iter=nb_iter)
        np.testing.assert_allclose(delta, np.clip(x + 0.1 * sign, 0, 1) - x, atol=1e-6)


@pytest.mark.parametrize("warmup, epochs, expected", [
    (2, 4, (0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1, 1)), (0, 1, (1, 1, 1)),
    (10, 2, (0, 1 / 3, 2 / 3, 1, 1, 1))], ids=["usual", "none", "longer than half the training"])
def test_eps_grows_over_the_warmup_and_reaches_that_of_the_recipe(case, warmup, epochs, expected):
    """As the learning rate does, whose warm-up is at most half of all epochs."""
    for nb_iter, radius in ((1, 3), (3, 1)):
        sizes = [np.abs(_shown(case, *divmod(step, 3), warmup_epochs=warmup, epochs=epochs,
                               nb_iter=nb_iter)[0]).max() for step in range(len(expected))]
        np.testing.assert_allclose(sizes, 0.1 * radius * np.array(expected), rtol=0.02, atol=1e-6)


def test_noise_differs_by_seed_epoch_and_batch(case):
    noise = [_shown(case, epoch, i, seed=seed)[:3] for seed, epoch, i in ((0, 2, 0), (1, 2, 0),
                                                                          (0, 3, 0), (0, 2, 1))]
    noise = [delta[:44] - 0.1 * sign[:44] for delta, _, sign in noise]
    assert len({part.tobytes() for part in noise}) == 4
    assert all(abs(np.corrcoef(noise[0].ravel(), part.ravel())[0, 1]) < 0.15 for part in noise[1:])


def test_growing_radii_trace_nothing_anew(case):
    model, _, x, y = case
    runs = []

    def counting(images):
        runs.append(1)
        return model(images)
    for step in range(9):
        epoch = batches.Batches(x, y, RECIPE, step // 3)
        adversarial.batch(counting, epoch, step % 3)
    assert len(runs) <= 2  # for batches of 128, and for any


def test_training_is_the_natural_one_where_nothing_is_attacked(made, monkeypatch):
    """So what it records are the means over images that Keras itself would record."""
    natural = networks.Recipe("mnist", "lenet", epochs=2, train_size=300, shift=1)
    monkeypatch.setattr(adversarial, "batch", lambda model, epoch, i: epoch[i])
    model, history = networks.load_or_train(natural)
    same, kept = networks.load_or_train(dataclasses.replace(natural, eps=0.1))
    assert all(map(np.array_equal, model.get_weights(), same.get_weights()))
    robust = kept.pop("val_robust_accuracy")
    assert len(robust) == 2 and robust[-1] <= kept["val_accuracy"][-1]
    assert kept.keys() == history.keys()
    for key, values in history.items():
        np.testing.assert_allclose(kept[key], values, atol=2e-6)


def test_an_interrupted_adversarial_training_resumes_to_the_very_same(made, monkeypatch):
    recipe = networks.Recipe("mnist", "lenet", epochs=2, train_size=300, eps=0.1, nb_iter=2)
    model, history = networks.load_or_train(recipe)
    for path in forgery.kept_files(made):
        path.unlink()
    save = training._save_partial

    def save_and_stop(*args):
        save(*args)
        raise KeyboardInterrupt
    with monkeypatch.context() as patched:
        patched.setattr(training, "_save_partial", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            networks.load_or_train(recipe)
    again, kept = networks.load_or_train(recipe)
    assert kept == history and len(kept["val_robust_accuracy"]) == 2
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
