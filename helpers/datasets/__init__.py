"""What the networks see: data sets, each a record with all that depends on it, proved by SHA-256.

`load` gives the images of one, `record` its record; MNIST and CIFAR-10 are registered. `download` brings the
full CIFAR-10.
"""
from helpers.datasets.loading import (
    ARRAYS, BYTES, Images, array_sha256, at_hand, check_arrays, first_per_class, image_file, load,
    read_checked, statistics, statistics_of)
from helpers.datasets.records import (
    NAMES, RECORDS, ClassName, DataSet, ImageFile, Published, record, register)

__all__ = [
    "ARRAYS", "BYTES", "NAMES", "RECORDS", "ClassName", "DataSet", "ImageFile", "Images", "Published",
    "array_sha256", "at_hand", "check_arrays", "download", "first_per_class", "image_file", "load",
    "read_checked",
    "record", "register", "statistics", "statistics_of"]
