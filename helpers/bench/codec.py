"""The codec of helpers.jpeg.codec against a plain loop with Pillow, in turns on the same images."""
import io
import time

import numpy as np
from PIL import Image

from helpers import jpeg


def with_pillow(x, quality):
    """Return images after JPEG, float32 as x, by one call of Pillow after the other."""
    levels, result = np.round(255 * x).astype(np.uint8), np.empty_like(x, np.float32)
    for image, out in zip(levels, result):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
        out[:] = np.asarray(Image.open(file)).reshape(out.shape) / np.float32(255)
    return result


def against_pillow(x, quality=75, repeats=5):
    """Return how many times as long Pillow takes as jpeg.compress, (repeats,)."""
    ratios = []
    for _ in range(repeats):
        ticks = [time.perf_counter()]
        for run in (with_pillow, jpeg.compress):
            run(x, quality)
            ticks.append(time.perf_counter())
        ratios.append((ticks[1] - ticks[0]) / (ticks[2] - ticks[1]))
    return np.array(ratios)
