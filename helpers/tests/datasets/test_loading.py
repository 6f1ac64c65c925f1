"""The data are the official ones, in the form promised, and damaged files are refused."""
import numpy as np
import pytest

from helpers import datasets
from helpers.artifacts import paths


@pytest.fixture(scope="module", params=datasets.NAMES)
def data(request):
    return datasets.load(request.param)


def test_form(data):
    shape = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[data.name]
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.shape == (len(y), *shape) and y.shape == (len(y),)
        assert x.min() == 0 and x.max() == 1
        assert set(np.unique(y)) == set(range(10))
        assert np.array_equal(np.round(x * 255) / np.float32(255), x)  # 8-bit levels, nothing else
    assert len(data.class_names) == 10
    assert data._fields == ("name", "x_train", "y_train", "x_test", "y_test", "class_names", "complete")
    assert data.record is datasets.record(data.name)


def test_class_names_are_in_the_official_order():
    english = [name.en for name in datasets.load("cifar10").class_names]
    assert english == sorted(english)  # CIFAR-10's labels follow the English alphabet
    assert datasets.load("cifar10").class_names[0].es == "avión"


def test_mnist_has_the_official_counts():
    data = datasets.load("mnist")
    assert data.complete
    assert np.bincount(data.y_train).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.x_train.mean() == pytest.approx(0.1307, abs=5e-5)  # as widely published
    assert data.x_train.std() == pytest.approx(0.3081, abs=5e-5)


def test_full_cifar10_has_the_official_statistics():
    data = datasets.load("cifar10")
    if not data.complete:
        pytest.skip("the full CIFAR-10 is not under data/")
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    pixels = 255 * data.x_train.reshape(-1, 3).astype(np.float64)
    assert pixels.mean(0) == pytest.approx([125.307, 122.950, 113.865], abs=1e-3)
    assert pixels.std(0) == pytest.approx([62.993, 62.089, 66.705], abs=1e-3)


def _part():
    """Return the arrays of the tracked part of CIFAR-10."""
    record = datasets.record("cifar10")
    return datasets.read_checked(paths.DATA / record.part.name, record.part.sha256)


def test_the_part_of_cifar10_is_the_beginning_of_the_whole():
    part = _part()
    assert np.bincount(part["y_train"]).tolist() == [500] * 10
    assert len(part["y_test"]) == 2000
    whole = datasets.load("cifar10")
    assert np.array_equal(np.round(255 * whole.x_test[:2000]), part["x_test"])
    first = datasets.first_per_class(whole.y_train, 5000)
    assert np.array_equal(np.round(255 * whole.x_train[first]), part["x_train"])


def test_shipped_statistics_agree_with_the_data(data):
    table = datasets.statistics(data.name)
    assert table[table.split.eq("train") & table.quantity.eq("class 3")].value.item() == (
        {"mnist": 6131, "cifar10": 5000}[data.name])


def test_unknown_name():
    with pytest.raises(ValueError, match="fashion"):
        datasets.load("fashion")


def _write(path, arrays):
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def test_damaged_files_are_refused_and_named(tmp_path, monkeypatch):
    part = _part()
    monkeypatch.setattr(paths, "DATA", tmp_path)
    path = tmp_path / "cifar10.npz"
    _write(path, part)  # a sound file, but not the full set that its name promises
    with pytest.raises(ValueError, match="cifar10.npz is damaged: x_train"):
        datasets.load("cifar10")
    path.unlink()
    one_bit = {**part, "x_test": part["x_test"].copy()}
    one_bit["x_test"].flat[-1] ^= 1
    path = tmp_path / "cifar10_part.npz"
    _write(path, one_bit)
    with pytest.raises(ValueError, match="cifar10_part.npz is damaged: x_test"):
        datasets.load("cifar10")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cifar10_part.npz is damaged"):
        datasets.load("cifar10")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="cifar10_part.npz is damaged"):
        datasets.load("cifar10")


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{name: np.array([{}], dtype=object) for name in datasets.ARRAYS})
    with pytest.raises(ValueError, match="damaged"):
        datasets.read_checked(path, datasets.record("mnist").full.sha256)
