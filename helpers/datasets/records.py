"""A data set is a record: all that depends on it stands here, and nothing else asks for its name.

The records of MNIST and CIFAR-10 stand below; `register` adds another, of the same interface. A record's
numbers are parts of what artifacts are kept by: where one changes, what was computed with it is made again.
"""
from typing import NamedTuple

import numpy as np


class ClassName(NamedTuple):
    """A class's name: Spanish for display, English as published."""
    es: str
    en: str


class ImageFile(NamedTuple):
    """An .npz of images under data/ (or at an absolute path), and what it holds.

    sha256: of the bytes of its four uint8 arrays, in the order of loading.ARRAYS. train, test: numbers of
    images; rarest: training images of the rarest class.
    """
    name: str
    sha256: tuple
    train: int
    test: int
    rarest: int


class Published(NamedTuple):
    """What papers report, for comparison.

    carlini_wagner: mean L2 distance of the best, the mean and the worst target (Carlini & Wagner 2017, table
    IV). robust: accuracy of adversarially trained networks under "fgsm" and "pgd" of the radius of reference.
    errors: of an architecture, its error on all the test images, and the citation of who reports it.
    """
    carlini_wagner: tuple
    robust: dict
    errors: dict


class DataSet(NamedTuple):
    """Everything that depends on the data set; radii and amplitudes are of images in [0, 1].

    full, part: ImageFile of all official images, and of those that are always there (None, where all are).
    shape: of an image, (H, W, C). class_names: ClassName of each label. radius_unit: a radius is written as a
    multiple of its inverse: 255 for "8/255", 1 for "0.3".

    Radii, L-infinity but where a name or norm says else. small, reference: of most comparisons, the latter as
    papers report it. ladders: by norm (np.inf, 2), of attacks on the network alone; jpeg_ladder: of who knows
    JPEG; drawn_radii: where the quality is drawn; shown_radii: of images shown one beside the other;
    explorer_radii: of the explorer. Each of these increases from 0. reference_l2: as papers report it;
    near_l2: about the median distance to the boundary.

    Waves, L2. amplitudes: of answers to them; largest_amplitude: up to which the least is searched;
    error_amplitude: where errors are counted.

    pairs: classes (true, target) of which the chapters tell; examples: two test images that they show.
    """
    name: str
    title: str
    full: ImageFile
    shape: tuple
    class_names: tuple
    radius_unit: int
    small: float
    reference: float
    reference_l2: float
    near_l2: float
    ladders: dict
    jpeg_ladder: tuple
    drawn_radii: tuple
    shown_radii: tuple
    explorer_radii: tuple
    amplitudes: tuple
    largest_amplitude: float
    error_amplitude: float
    pairs: tuple
    examples: tuple
    part: ImageFile | None = None
    published: Published | None = None

    @property
    def classes(self):
        """The number of classes."""
        return len(self.class_names)


RECORDS = {}
NAMES = RECORDS.keys()  # a view: it follows what is registered


def register(record):
    """Add a DataSet to RECORDS and return it; to take it away again, pop its name from there.

    Raises ValueError for a name that is taken or "all", and where its parts do not fit one another.
    """
    if not record.name or record.name in ("all", *NAMES):
        raise ValueError(f"name must be none of {', '.join(['all', *NAMES])}, nor empty, got {record.name!r}")
    if len(record.shape) != 3 or min(record.shape) < 1:
        raise ValueError(f"shape must be (H, W, C), got {record.shape}")
    if record.classes < 2:
        raise ValueError(f"class_names must be of two classes at least, got {record.class_names}")
    for pair in record.pairs:
        if not set(pair) <= set(range(record.classes)):
            raise ValueError(f"pairs must be of classes in 0..{record.classes - 1}, got {pair}")
    _check_radii(record)
    RECORDS[record.name] = record
    return record


def _check_radii(record):
    """Raise ValueError unless a record's ladders are such, and hold the radii that are looked up in them."""
    if type(record.radius_unit) is not int or record.radius_unit < 1:
        raise ValueError(f"radius_unit must be an integer >= 1, got {record.radius_unit!r}")
    if set(record.ladders) != {np.inf, 2}:
        raise ValueError(f"ladders must be of the norms inf and 2, got {list(record.ladders)}")
    ladders = {f"ladders[{norm}]": radii for norm, radii in record.ladders.items()}
    ladders |= {name: getattr(record, name)
                for name in ("jpeg_ladder", "drawn_radii", "shown_radii", "explorer_radii")}
    for name, radii in ladders.items():
        if len(radii) < 2 or radii[0] != 0 or (np.diff(radii) <= 0).any():
            raise ValueError(f"{name} must increase from 0, got {radii}")
    for name, ladder in (("small", "jpeg_ladder"), ("small", "ladders[inf]"), ("reference", "ladders[inf]")):
        if getattr(record, name) not in ladders[ladder]:
            raise ValueError(f"{name} must be in {ladder}, {ladders[ladder]}, got {getattr(record, name)}")


def record(name):
    """Return the DataSet of this name; raise ValueError for one that is not registered."""
    if name not in NAMES:
        raise ValueError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")
    return RECORDS[name]


register(DataSet(
    name="mnist", title="MNIST", shape=(28, 28, 1),
    class_names=tuple(ClassName(str(digit), str(digit)) for digit in range(10)),
    full=ImageFile("mnist.npz", (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"), 60_000, 10_000, rarest=5421),
    radius_unit=1, small=0.1, reference=0.3, reference_l2=2.0, near_l2=1.0,
    ladders={np.inf: (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
             2: (0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10)},
    jpeg_ladder=(0, 0.05, 0.1, 0.15, 0.2, 0.3), drawn_radii=(0, 0.1, 0.2),
    shown_radii=(0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5), explorer_radii=(0, 0.05, 0.1, 0.2, 0.3),
    amplitudes=(0.5, 1.0, 2.0, 4.0, 8.0), largest_amplitude=28.0, error_amplitude=8.0,
    pairs=((3, 8), (4, 9), (7, 1)), examples=(0, 8),
    published=Published((1.36, 1.76, 2.60), {"fgsm": 0.964, "pgd": 0.925}, {})))  # PGD of 100 steps


register(DataSet(
    name="cifar10", title="CIFAR-10", shape=(32, 32, 3),
    class_names=(
        ClassName("avión", "airplane"), ClassName("automóvil", "automobile"), ClassName("ave", "bird"),
        ClassName("gato", "cat"), ClassName("ciervo", "deer"), ClassName("perro", "dog"),
        ClassName("rana", "frog"), ClassName("caballo", "horse"), ClassName("barco", "ship"),
        ClassName("camión", "truck")),
    full=ImageFile("cifar10.npz", (
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"), 50_000, 10_000, rarest=5000),
    part=ImageFile("cifar10_part.npz", (
        "8408cb1d487a81dc74bed9bf922c2fd301fe2b1423ee16016de79a0f4ea9cff1",
        "82b397643bd8851eecd4bf04f74438bf4aeeb7d1f9074791252a04fd9277c0f3",
        "4946cb5ae9a2c68e6ca2da22e50da3b523358fd85ffaccfe834632e039845928",
        "3902c3af7fa7672eec1fabac87b4a7d8e9846a916952a3f6b723ec75787df0f9"), 5_000, 2_000, rarest=500),
    radius_unit=255, small=2 / 255, reference=8 / 255, reference_l2=0.5, near_l2=0.1,
    ladders={np.inf: (0, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255, 64 / 255, 0.5),
             2: (0, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16)},
    jpeg_ladder=(0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), drawn_radii=(0, 1 / 255, 4 / 255),
    shown_radii=(0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255),
    explorer_radii=(0, 1 / 255, 2 / 255, 4 / 255, 8 / 255),
    amplitudes=(0.25, 0.5, 1.0, 2.0, 4.0), largest_amplitude=16.0, error_amplitude=2.0,
    pairs=((3, 5), (8, 0)), examples=(1, 6),
    published=Published((0.17, 0.33, 0.51), {"fgsm": 0.556, "pgd": 0.470},
                        {"resnet": (0.0875, "he2016, tabla 6")})))  # PGD of 20 steps
