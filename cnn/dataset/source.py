"""A source of images: a listed folder, a prepared dataset, or the embedded digits."""

from dataclasses import dataclass, replace

import pyarrow as pa

from cnn.config import Experiment, Images
from cnn.dataset import digits, prepared
from cnn.dataset.pixels import Decode, Gather, Pixels
from cnn.dataset.prepared import Card, Prepared
from cnn.errors import UserError
from cnn.files.atomic import holds_anything
from cnn.files.folder import Listing, list_folder
from cnn.files.place import Place, place
from cnn.files.unreadable import Reason
from cnn.image import DECODER_VERSION
from cnn.manifest import Manifest, label_images
from cnn.runs.run_folder import RunFolder
from cnn.scoring.worklist import Root
from cnn.settings.schema import flag

# Reasons that a user may remove without touching the files, which are then the same to a listing.
PASSING: tuple[Reason, ...] = ("permission_denied", "vanished", "decoder_crashed")


@dataclass(frozen=True)
class Source:
    """A listed folder of images, not decoded yet, and the key of what is prepared from it.

    Exactly one of `listing` and `prepared` is given: the images are files, or prepared already.
    """

    root: str
    manifest: Manifest
    key: str
    settings: Images
    listing: Listing | None = None
    prepared: Place | None = None


def find_source(settings: Experiment, run: RunFolder) -> Source:
    """The images to train on: the folder given, a prepared dataset, or the embedded digits."""
    if settings.images is None:
        folder = digits.write(run.path.parent / "digits-images")
        return list_source(str(folder), settings.data)
    if is_prepared_dataset(settings.images):
        return reuse(place(settings.images), settings.data)
    return list_source(settings.images, settings.data)


def list_source(root: str, settings: Images) -> Source:
    """List a folder; UserError if it does not hold folders of classes."""
    listing = list_folder(root)
    manifest = label_images(listing)
    return Source(listing.root, manifest, key_of(listing, settings), settings, listing)


def key_of(listing: Listing, settings: Images) -> str:
    """The key of what this version prepares from a listing with these settings."""
    return prepared.listing_key(listing, settings.image_size, settings.fit, DECODER_VERSION)


def resized(source: Source, image_size: int) -> Source:
    """The same images, at another size; UserError if they are prepared already, at theirs."""
    if image_size == source.settings.image_size:
        return source
    settings = source.settings.model_copy(update={"image_size": image_size})
    if source.prepared is not None:
        return reuse(source.prepared, settings)
    assert source.listing is not None
    return replace(source, key=key_of(source.listing, settings), settings=settings)


def reuse(folder: Place, settings: Images) -> Source:
    """A prepared dataset given instead of images; its own image size and fit apply."""
    dataset = Prepared.open(folder)
    own = Images(image_size=dataset.card.image_size, fit=dataset.card.fit)
    for name in settings.model_fields_set:
        if getattr(settings, name) != getattr(own, name):
            raise UserError(
                f"{folder} was prepared with {name} {getattr(own, name)}: "
                f"leave out {flag(name)}, or train from the images"
            )
    card = dataset.card
    return Source(card.source, dataset.manifest, card.key, own, prepared=folder)


def is_prepared_dataset(folder: str) -> bool:
    """Whether a folder given as images is a prepared dataset."""
    return (place(folder) / prepared.CARD).is_file()


def default_out(images: str | None) -> str:
    """`runs/` and the name of the images' folder."""
    return f"runs/{place(images).resolve().name if images else 'digits'}"


def prepared_folder(source: Source, settings: Experiment, run: RunFolder) -> Place:
    """Where the prepared dataset of `source` is or will be: one for all runs that can share it.

    Absolute, because Ray's workers have working directories of their own.
    """
    if source.prepared is not None:
        return source.prepared.absolute()
    parent = place(settings.prepared) if settings.prepared else run.path.parent / "prepared"
    return parent.absolute() / source.key


def is_prepared(source: Source, folder: Place) -> bool:
    """Whether `folder` holds the whole prepared dataset of `source`.

    Raises UserError if it holds another's, or anything else.
    """
    if not holds_anything(folder):
        return False
    for name in (prepared.CARD, prepared.BEGUN):
        if (folder / name).is_file():
            card, whole = prepared.read_card(folder / name), name == prepared.CARD
            require_same(source, folder, card, whole)
            return whole
    raise UserError(f"{folder} exists and is not a prepared dataset: name another folder")


def open_prepared(source: Source, folder: Place) -> Prepared:
    """The prepared dataset of `source`, with what its listing has ignored this time."""
    dataset = Prepared.open(folder)
    listed = source.manifest
    manifest = replace(dataset.manifest, ignored=listed.ignored, empty_folders=listed.empty_folders)
    return replace(dataset, manifest=manifest)


def passing_faults(dataset: Prepared) -> dict[str, int]:
    """Images that could not be read for a reason that may be gone by now, counted by reason."""
    errors = dataset.manifest.errors()
    return {reason: errors[reason] for reason in PASSING if errors[reason]}


def require_same(source: Source, folder: Place, card: Card, whole: bool) -> None:
    """Raise UserError if a card is another source's, or its images were divided differently."""
    if card.key != source.key:
        raise UserError(
            f"{folder} was prepared {difference(source, card)}: name another folder, or remove it"
        )
    if not whole and card.shards != len(prepared.cut(source.manifest.table, card.image_size)):
        raise UserError(
            f"{folder} was started by a version that divides images differently: "
            "remove it to decode them again"
        )


def difference(source: Source, card: Card) -> str:
    """How a card of another key differs from the source: in its settings, else in its images."""
    for name in ("image_size", "fit"):
        before, now = getattr(card, name), getattr(source.settings, name)
        if before != now:
            return f"with {name} {before}, not {now}"
    return "from other images, or by another version"


def source_pixels(source: Source) -> Pixels:
    """The pixels of a source's images, wherever they are."""
    if source.prepared is not None:
        return Gather(Prepared.open(source.prepared))
    images = source.settings
    # No file has been decoded yet: one that crashes its decoder must not end the job.
    decode = Decode([Root(source.root, "")], images.image_size, images.fit, isolated=True)
    return lambda rows: decode(rows.append_column("root", pa.array([0] * len(rows), pa.int16())))
