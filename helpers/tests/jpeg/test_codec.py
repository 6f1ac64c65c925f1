"""JPEG: the real codec against Pillow, the differentiable one against the real, attackers against both."""
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers import attacks, datasets, jpeg, networks
from helpers.artifacts import paths
from helpers.attacks import gradients

QUALITIES = (1, 10, 50, 75, 95, 100)


def _images(name, n=40):
    return datasets.load(name).x_test[:n]


def _odd(n=6, shape=(27, 45)):
    """Smooth colour images whose sides are no multiple of 8 or 16."""
    return np.clip(tf.image.resize(_images("cifar10", n), shape).numpy(), 0, 1)


def _pillow(image, quality, subsampling):
    """Return (levels, bytes) of one image through Pillow."""
    levels, file = np.round(image * 255).astype(np.uint8), io.BytesIO()
    code = ("4:4:4", "4:2:2", "4:2:0").index(subsampling)
    Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0]).save(
        file, "JPEG", quality=quality, subsampling=code)
    return np.asarray(Image.open(file)).reshape(levels.shape), len(file.getvalue())


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("subsampling", jpeg.SUBSAMPLINGS)
@pytest.mark.parametrize("name", ["mnist", "cifar10", "odd"])
def test_the_real_codec_is_pillows_bit_for_bit(name, subsampling, quality):
    x = _odd() if name == "odd" else _images(name, 20)
    ours, sizes = jpeg.compress(x, quality, subsampling), jpeg.compressed_size(x, quality, subsampling)
    assert ours.dtype == np.float32 and ours.shape == x.shape
    for image, mine, size in zip(x, ours, sizes):
        levels, length = _pillow(image, quality, subsampling)
        assert np.array_equal(np.round(mine * 255), levels) and size == length


def test_an_image_does_not_depend_on_the_others_nor_on_the_threads():
    x = _images("cifar10", 700)
    quality = np.random.default_rng(0).integers(1, 101, len(x))
    whole = jpeg.compress(x, quality)
    for i in (0, 255, 256, 699):
        assert np.array_equal(whole[i], jpeg.compress(x[i:i + 1], int(quality[i]))[0])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_error_and_size_follow_the_quality(name):
    x = _images(name)
    error = [np.abs(jpeg.compress(x, q) - x).mean() for q in (5, 25, 50, 75, 95)]
    size = [jpeg.compressed_size(x, q).mean() for q in (5, 25, 50, 75, 95)]
    assert (np.diff(error) < 0).all() and (np.diff(size) > 0).all()
    assert (jpeg.compressed_size(x, 50) == jpeg.compressed_size(x, 50)).all()


def test_the_dct_is_orthonormal_and_its_first_row_the_mean():
    dct = jpeg.dct_matrix()
    np.testing.assert_allclose(dct @ dct.T, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(dct[0], 1 / np.sqrt(8))


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 75, 95, 100])
def test_the_tables_are_those_in_the_file(quality):
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG", quality=quality)
    inside = Image.open(file).quantization
    assert np.array_equal(jpeg.tables(quality).reshape(2, 64), [inside[0], inside[1]])


@pytest.mark.parametrize("name, subsampling", [("mnist", "4:2:0"), *(
    (name, s) for name in ("cifar10", "odd") for s in jpeg.SUBSAMPLINGS)])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_the_differentiable_codec_is_near_the_real_one(name, subsampling, quality):
    x = _odd() if name == "odd" else _images(name)
    real = 255 * jpeg.compress(x, quality, subsampling)
    for rounding, bound in (("straight", 0.5), ("cubic", 2.0)):
        soft = 255 * jpeg.compress_differentiable(x, quality, subsampling, rounding=rounding).numpy()
        assert soft.shape == x.shape and soft.min() >= 0 and soft.max() <= 255
        assert np.abs(soft - real).mean() < bound
    # Nearly every pixel, where only the integer arithmetic of the codec can differ.
    straight = 255 * jpeg.compress_differentiable(x, quality, subsampling, rounding="straight").numpy()
    assert np.mean(np.abs(straight - real) > 1.5) < 0.1


def test_cubic_rounding_has_its_own_slope_and_straight_that_of_the_identity():
    v = tf.constant([-1.3, -0.5, 0.0, 0.2, 0.49, 0.5, 7.9])
    for rounding, slope in ((jpeg.cubic, 3 * (v - tf.sign(v) * tf.floor(tf.abs(v) + 0.5)) ** 2),
                            (jpeg.straight, tf.ones_like(v))):
        with tf.GradientTape() as tape:
            tape.watch(v)
            total = tf.reduce_sum(rounding(v))
        np.testing.assert_allclose(tape.gradient(total, v), slope, atol=1e-6)
    assert jpeg.straight(v).numpy().tolist() == [-1, -1, 0, 0, 0, 1, 8]  # halves away from zero


def test_straight_rounding_lets_the_whole_gradient_pass():
    grey = tf.constant(_images("mnist", 2))
    with tf.GradientTape() as tape:
        tape.watch(grey)
        value = tf.reduce_sum(jpeg.compress_differentiable(0.5 + 0.1 * grey, 50, rounding="straight"))
    # With the identity's slope at every rounding, there and back through an orthonormal basis.
    np.testing.assert_allclose(tape.gradient(value, grey), 0.1, atol=1e-4)


def test_the_straight_through_codec_is_the_real_one_with_the_gradient_of_the_identity():
    x = tf.constant(_images("cifar10", 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = jpeg.real(x, 30)
    assert np.array_equal(value, jpeg.compress(x.numpy(), 30))
    assert (tape.gradient(value, x).numpy() == 1).all()


def test_random_blocks_come_whole_from_one_of_the_qualities():
    x = _images("mnist", 30)
    mixed = jpeg.compress_blocks(x, (5, 90), seed=0)
    versions = [jpeg.compress(x, q) for q in (5, 90)]
    seen = set()
    for i in range(0, 28, 8):
        for j in range(0, 28, 8):
            block = np.s_[:, i:i + 8, j:j + 8]
            same = np.stack([(mixed[block] == v[block]).all(axis=(1, 2, 3)) for v in versions])
            assert same.any(axis=0).all()
            seen |= set(map(tuple, same.T))
    assert {(True, False), (False, True)} <= seen
    assert np.array_equal(mixed, jpeg.compress_blocks(x, (5, 90), seed=0))
    assert not np.array_equal(mixed, jpeg.compress_blocks(x, (5, 90), seed=1))


@pytest.fixture(scope="module")
def lenet():
    model, _, _ = networks.read_network(paths.place(paths.SHIPPED,
                                                    networks.RECIPES["mnist", "lenet"].filename))
    data = datasets.load("mnist")
    return model, data.x_test[:60], data.y_test[:60]


@pytest.mark.parametrize("how", ["identity", "differentiable", "straight"])
def test_an_attacker_who_knows_is_at_least_as_strong_as_the_blind_one(lenet, how):
    model, x, y = lenet
    settings = {"eps": 0.15, "eps_iter": 0.02, "nb_iter": 15, "loss": "margin"}

    def left(attacked):
        x_adv = attacks.pgd(attacked, x, y, **settings)
        assert np.abs(x_adv - x).max() <= 0.15 + 1e-6
        return np.mean(gradients.logits(model, jpeg.compress(x_adv, 25)).argmax(axis=1) == y)
    assert left(jpeg.defended(model, 25, how)) <= left(model)


def test_carlini_wagner_through_the_real_codec_breaks_the_real_codec(lenet):
    model, x, y = lenet
    x, y = x[:6], y[:6]
    behind = jpeg.defended(model, 50, "identity")
    x_adv = attacks.carlini_wagner(behind, x, y, max_iterations=200, binary_search_steps=2)
    moved = (x_adv != x).any(axis=(1, 2, 3))
    assert moved.any()
    answer = gradients.logits(model, jpeg.compress(x_adv, 50)).argmax(axis=1)
    assert (answer[moved] != y[moved]).all()


def test_several_qualities_are_the_mean_of_their_logits(lenet):
    model, x, _ = lenet
    mean = np.mean([gradients.logits(jpeg.defended(model, q), x) for q in (20, 60)], axis=0)
    np.testing.assert_allclose(gradients.logits(jpeg.defended(model, (20, 60)), x), mean, atol=1e-4)


@pytest.mark.parametrize("quality", [0, 101, 50.0, "50", True, None, -3])
def test_a_bad_quality_is_named(quality):
    x = _images("mnist", 2)
    for call in (lambda: jpeg.compress(x, quality), lambda: jpeg.compressed_size(x, quality),
                 lambda: jpeg.compress_differentiable(x, quality), lambda: jpeg.tables(quality),
                 lambda: jpeg.defended(lambda x: x, quality)):
        with pytest.raises(ValueError, match=r"quality must be an integer in 1\.\.100, got"):
            call()


def test_other_bad_input_is_named():
    x = _images("mnist", 2)
    for wrong in ("420", "4:1:1", 2, None):
        for call in (jpeg.compress, jpeg.compressed_size, jpeg.compress_differentiable):
            with pytest.raises(ValueError, match="subsampling must be one of 4:4:4, 4:2:2, 4:2:0"):
                call(x, 50, wrong)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        jpeg.compress(x * 2, 50)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        jpeg.compress(np.zeros((1, 8, 8, 2), np.float32), 50)
    with pytest.raises(ValueError, match="one for each of 2 images, got 3"):
        jpeg.compress(x, [50, 50, 50])
    with pytest.raises(ValueError, match="rounding must be one of cubic, straight, got 'soft'"):
        jpeg.compress_differentiable(x, 50, rounding="soft")
    with pytest.raises(ValueError, match="how must be one of .*, got 'blind'"):
        jpeg.defended(lambda x: x, 50, "blind")
    with pytest.raises(ValueError, match="at least one quality"):
        jpeg.defended(lambda x: x, [])
