"""The embedded data set: 1,797 real handwritten digits, written out as a folder of images."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from cnn.files.atomic import write_atomically
from cnn.files.place import Place


def write(folder: Place) -> Place:
    """Write the digits that come with scikit-learn as PNGs, in a folder per class, once.

    Source: the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998.
    """
    digits = load_digits()
    names = [f"{label}/{number:04d}.png" for number, label in enumerate(digits.target)]
    if (folder / names[-1]).exists():  # it is written last, so all exist
        return folder
    for label in map(str, digits.target_names):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(names, digits.images, strict=True):
        if (folder / name).exists():  # by another job: written again, it would count as changed
            continue
        png = io.BytesIO()
        Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(png, "png")
        write_atomically(folder / name, png.getvalue())
    return folder
