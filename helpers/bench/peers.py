"""The libraries compared. Each is a function (model, x, y, targeted, settings) -> x_adv.

model: a Keras network that returns logits. x: float32 (N, H, W, C) in [0, 1]. y: int64 (N,), true
labels, or targets if `targeted`. settings: "attack" ("fgsm", "pgd" or "carlini_wagner"), "norm" and
"batch_size", and what that attack takes, named as in `attacks`. x_adv: float32, as x.

What a library compiles it keeps for the next call with the same model, as long as the process lives.
"""
import functools
import inspect
import textwrap

import keras
import numpy as np
import tensorflow as tf

from helpers import attacks


def ours(model, x, y, targeted, settings):
    """Return the images of our own attacks; our Carlini-Wagner finds its first constant itself."""
    attack = settings["attack"]
    if attack == "carlini_wagner":
        return attacks.carlini_wagner(
            model, x, y, targeted=targeted, **_without(settings, {"attack", "norm", "initial_const"}))
    run = {"fgsm": attacks.fgsm, "pgd": attacks.pgd}[attack]
    return run(model, x, y, targeted=targeted, **_without(settings, {"attack"}))


def foolbox(model, x, y, targeted, settings, compiled=False):
    """Return the images of Foolbox; compiled: its model is wrapped in tf.function."""
    import foolbox as fb
    attack, eps = _foolbox_attack(fb.attacks, **settings)
    criterion = fb.criteria.TargetedMisclassification if targeted else fb.criteria.Misclassification
    return _in_batches(lambda x, y: attack(_foolbox_model(model, compiled), x, criterion(y),
                                           epsilons=eps)[0], x, y, settings["batch_size"])


def _foolbox_attack(theirs, attack, norm, batch_size, eps=None, eps_iter=None, nb_iter=None,
                    max_iterations=None, learning_rate=None, **more):
    """Return (Foolbox's attack, its eps, None where the attack has none)."""
    if attack == "carlini_wagner":
        return theirs.L2CarliniWagnerAttack(steps=max_iterations, stepsize=learning_rate, **more), eps
    if attack == "fgsm":
        return (theirs.FGSM() if norm == np.inf else theirs.FGM()), eps
    kind = theirs.LinfPGD if norm == np.inf else theirs.L2PGD
    return kind(abs_stepsize=eps_iter, steps=nb_iter, random_start=True), eps


@functools.cache
def _foolbox_model(model, compiled):
    import foolbox as fb
    return fb.TensorFlowModel(tf.function(model) if compiled else model, bounds=(0, 1))


def art(model, x, y, targeted, settings):
    """Return the images of the Adversarial Robustness Toolbox.

    Its Carlini-Wagner doubles a constant that failed: nine steps from 0.001 end at 0.256, where
    it breaks neither of two images on LeNet-5. A step with 1 breaks both, but with a target only
    one, and steps with 4 or 10 no more.
    """
    from art.attacks import evasion
    kinds = {"fgsm": evasion.FastGradientMethod, "pgd": evasion.ProjectedGradientDescent,
             "carlini_wagner": evasion.CarliniL2Method}
    names = {"eps_iter": "eps_step", "nb_iter": "max_iter", "max_iterations": "max_iter"}
    arguments = {names.get(name, name): value
                 for name, value in _without(settings, {"attack", "norm"}).items()}
    if settings["attack"] != "carlini_wagner":
        arguments["norm"] = settings["norm"]
    if settings["attack"] == "pgd":
        arguments["num_random_init"] = 1
    if settings["attack"] != "fgsm":
        arguments["verbose"] = False
    attack = kinds[settings["attack"]](_art_classifier(model), targeted=targeted, **arguments)
    return attack.generate(x, keras.utils.to_categorical(y, model.output_shape[-1]))


@functools.cache
def _art_classifier(model):
    from art.estimators.classification import TensorFlowV2Classifier
    return TensorFlowV2Classifier(
        model, nb_classes=model.output_shape[-1], input_shape=model.input_shape[1:],
        loss_object=keras.losses.CategoricalCrossentropy(from_logits=True), clip_values=(0, 1))


def cleverhans(model, x, y, targeted, settings):
    """Return the images of cleverhans; its Carlini-Wagner is the patched one, see there."""
    if settings["attack"] == "carlini_wagner":
        return _cleverhans_carlini_wagner(model, x, y, targeted, settings)
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.tf2.attacks.projected_gradient_descent import projected_gradient_descent
    arguments = _without(settings, {"attack", "batch_size"})
    run = fast_gradient_method
    if settings["attack"] == "pgd":
        run, arguments["rand_init"] = projected_gradient_descent, True
    return _in_batches(lambda x, y: run(model, x, y=y, targeted=targeted, clip_min=0.0, clip_max=1.0,
                                        **arguments), x, y, settings["batch_size"])


# What cleverhans 4.0.0 needs in order to run its Carlini-Wagner with Keras 3: a fresh optimiser at
# each search step (its reset calls `variables`, then also zeroes the learning rate, and a second
# batch meets the first one's optimiser), and one constant an image rather than one a pixel.
PATCHES = {
    "for var in self.optimizer.variables():\n"
    "            var.assign(tf.zeros(var.shape, dtype=var.dtype))":
        "self.optimizer = tf.keras.optimizers.Adam(self.learning_rate)",
    "const = tf.ones(shape) * self.initial_const":
        "const = tf.ones(shape[:1]) * self.initial_const",
}


def _cleverhans_carlini_wagner(model, x, y, targeted, settings):
    """Return the images of cleverhans's Carlini-Wagner with PATCHES, batch by batch.

    Without y it takes the predicted classes and is untargeted; with y it is always targeted. Two
    faults stay: a constant that succeeded is multiplied by 10, and confidence moves all logits alike.
    """
    attack = _cleverhans_attack(model, targeted, settings["confidence"])
    vars(attack).update(_without(settings, {"attack", "norm"}))

    def run(x, y):
        attack.y = y if targeted else None
        return attack._attack(x)
    return _in_batches(run, x, y, settings["batch_size"])


@functools.cache
def _cleverhans_attack(model, targeted, confidence):
    """Return the patched attack: one for each of what its compiled gradient holds as constants."""
    from cleverhans.tf2.attacks import carlini_wagner_l2 as shipped
    source = textwrap.dedent(inspect.getsource(shipped.CarliniWagnerL2._attack))
    for old, new in PATCHES.items():
        if source.count(old) != 1:
            raise ValueError(f"cleverhans's Carlini-Wagner is not the one patched here: {old!r}")
        source = source.replace(old, new)
    patched = {}
    exec(source, vars(shipped), patched)
    kind = type("Patched", (shipped.CarliniWagnerL2,), patched)
    return kind(model, y=0 if targeted else None, confidence=confidence)


def _without(settings, names):
    return {name: value for name, value in settings.items() if name not in names}


def _in_batches(run, x, y, size):
    """Return run(x, y), a tensor, as an array, `size` images at a time."""
    return np.concatenate([run(tf.constant(x[i:i + size]), tf.constant(y[i:i + size])).numpy()
                           for i in range(0, len(x), size)])


PEERS = {
    ("ours", "compiled"): ours,
    ("foolbox", "as shipped"): foolbox,
    ("foolbox", "compiled"): functools.partial(foolbox, compiled=True),
    ("art", "as shipped"): art,
    ("cleverhans", "as shipped"): cleverhans,
    ("cleverhans", "patched"): cleverhans,
}
