"""Spectra: Parseval, where a wave lies, and how much a low-pass filter takes."""
import numpy as np
import pytest

from helpers import frequency


@pytest.mark.parametrize("shape", [(4, 28, 28, 1), (4, 32, 32, 3)])
def test_rings_hold_the_luma_s_energy(shape):
    delta = np.random.default_rng(0).normal(0, 0.1, shape)
    cycles, energy = frequency.radial(delta)
    weights = np.ones(1) if shape[3] == 1 else np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(energy.sum(), np.square(delta @ weights).sum(axis=(1, 2)).mean(), rtol=1e-6)
    assert cycles.shape == energy.shape and 0 < cycles[0] < cycles[-1] < np.sqrt(0.5)


@pytest.mark.parametrize("u, v", [(0, 0), (3, 0), (0, 8), (14, 14)])
def test_a_wave_lies_in_the_ring_of_its_frequency(u, v):
    row, column = np.mgrid[:28, :28]
    wave = np.cos(2 * np.pi * (u * row + v * column) / 28)[np.newaxis, ..., np.newaxis]
    cycles, energy = frequency.radial(wave)
    ring = np.sqrt(0.5) / len(cycles)
    assert energy.argmax() == min(int(np.hypot(u, v) / 28 / ring), len(cycles) - 1)
    assert energy.max() > 0.999 * energy.sum()


@pytest.mark.parametrize("removed", [0, 0.1, 0.5, 0.9, 1])
def test_low_pass_takes_its_share_from_above(removed):
    delta = np.random.default_rng(0).normal(0, 1, (5, 32, 32, 3)).astype(np.float32)
    kept = frequency.low_pass(delta, removed)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(np.square(kept).sum() / np.square(delta).sum(), 1 - removed, atol=1e-5)
    before, after = (frequency.radial(d)[1] for d in (delta, kept))
    gains = after / before
    assert (np.diff(gains) < 1e-6).all()


def test_a_share_outside_0_and_1_is_refused():
    for removed in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"removed must be in \[0, 1\]"):
            frequency.low_pass(np.zeros((1, 8, 8, 1)), removed)


def test_images_of_any_number_of_channels_keep_their_energy():
    for channels in (1, 2, 3, 4):
        x = np.random.default_rng(0).normal(size=(3, 6, 6, channels))
        assert len(frequency.plane_names(channels)) == channels
        np.testing.assert_allclose((np.abs(frequency.transform(x)) ** 2).sum(axis=(1, 2, 3)),
                                   (x ** 2).sum(axis=(1, 2, 3)))
