"""The embedded data set: 1,797 real handwritten digits, written out as a folder of images."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write(folder: Path) -> Path:
    """Write the digits that come with scikit-learn as PNGs, in a folder per class, once.

    Source: the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
    Digits", UCI Machine Learning Repository, 1998.
    """
    if folder.exists():
        return folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = draft / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(file)
    try:
        os.rename(draft, folder)
    except OSError:  # another run was faster
        shutil.rmtree(draft)
    return folder
