"""Adversarial training: what the network is shown instead of its training images."""
import numpy as np
import tensorflow as tf
from cleverhans.tf2.utils import clip_eta

from helpers import attacks
from helpers.attacks import gradients


def batch(model, epoch, i):
    """Return (x_adv, y) of batch i of an epoch (batches.Batches), attacked on the model as it is.

    One step: eps · sign of the gradient from uniform noise of radius 2 eps, without projection
    (N-FGSM, de Jorge et al. 2022, arXiv:2202.01181): as cheap as FGSM, and without its catastrophic
    overfitting. Several: PGD with steps of 2.5 eps / nb_iter from a uniform start (Madry et al. 2018,
    arXiv:1706.06083). eps grows linearly from 0 to the recipe's over its warm-up epochs.
    """
    (x, y), recipe = epoch[i], epoch.recipe
    done = epoch.epoch + i / len(epoch)
    eps = np.float32(recipe.eps * (min(1.0, done / recipe.warmup) if recipe.warmup else 1.0))
    single = recipe.nb_iter == 1
    rng = np.random.default_rng([recipe.seed, 3, epoch.epoch, i])
    start = eps * rng.uniform(-1, 1, x.shape).astype(np.float32) * (2 if single else 1)
    run = gradients.made_once(_steps, model, recipe.nb_iter)
    eps_iter = eps if single else 2.5 * eps / recipe.nb_iter
    return run(*map(tf.constant, (x, y, start, 3 * eps if single else eps, np.float32(eps_iter)))), y


def accuracy(model, x, y, recipe, n=500):
    """Return {"val_robust_accuracy": …} under PGD-10 with the recipe's eps, on the first n images.

    It is what shows catastrophic overfitting: one step still fails where ten succeed.
    """
    x_adv = attacks.pgd(model, x[:n], y[:n], eps=recipe.eps, eps_iter=recipe.eps / 4, nb_iter=10)
    return {"val_robust_accuracy":
            float(np.mean(gradients.logits(model, x_adv).argmax(axis=1) == y[:n]))}


def _steps(model, nb_iter):
    """Return the compiled (x, y, start, radius, eps_iter) -> x_adv, the last iterate."""
    return gradients.compile(_walk, gradients.function(model, "cross_entropy"), nb_iter)


def _walk(gradient, nb_iter, x, y, start, radius, eps_iter):
    x_adv = tf.clip_by_value(x + start, 0.0, 1.0)
    for _ in tf.range(nb_iter):
        _, g = gradient(x_adv, y)
        x_adv = x + clip_eta(x_adv + eps_iter * tf.sign(g) - x, np.inf, radius)
        x_adv = tf.clip_by_value(x_adv, 0.0, 1.0)
    return x_adv
