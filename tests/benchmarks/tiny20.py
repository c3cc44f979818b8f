"""The folder `tiny20` of the README: 20 of Tiny-ImageNet's 200 classes, drawn at random.

    python -m tests.benchmarks.tiny20 tiny-imagenet-200.zip tiny20

The archive is Stanford's, from http://cs231n.stanford.edu/tiny-imagenet-200.zip. Its validation
images become `test`, because those that it calls test have no labels: of them, the first 1,000
become `unlabelled`.
"""

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

CLASSES = {
    "n01698640": "american-alligator",
    "n01770393": "scorpion",
    "n02113799": "standard-poodle",
    "n02129165": "lion",
    "n02281406": "sulphur-butterfly",
    "n02364673": "guinea-pig",
    "n02410509": "bison",
    "n02769748": "backpack",
    "n02808440": "bathtub",
    "n02837789": "bikini",
    "n02841315": "binoculars",
    "n03355925": "flagpole",
    "n03733131": "maypole",
    "n03770439": "miniskirt",
    "n03930313": "picket-fence",
    "n03970156": "plunger",
    "n04023962": "punching-bag",
    "n04254777": "sock",
    "n07747607": "orange",
    "n09193705": "alp",
}
UNLABELLED = 1_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    count = 0
    with ZipFile(asked.archive) as archive:
        for name, place in chosen(archive):
            file = asked.out / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(archive.read(f"tiny-imagenet-200/{name}"))
            count += 1
    print(f"wrote {count:,} images to {asked.out}")


def chosen(archive: ZipFile) -> Iterator[tuple[str, str]]:
    """The name of each image in the archive, and where it belongs."""
    for code, name in CLASSES.items():
        for number in range(500):
            file = f"{code}_{number}.JPEG"
            yield f"train/{code}/images/{file}", f"train/{name}/{file}"
    labels = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode()
    for file, code, *_ in csv.reader(io.StringIO(labels), delimiter="\t"):
        if code in CLASSES:
            yield f"val/images/{file}", f"test/{CLASSES[code]}/{file}"
    for number in range(UNLABELLED):
        yield f"test/images/test_{number}.JPEG", f"unlabelled/test_{number}.JPEG"


if __name__ == "__main__":
    main()
