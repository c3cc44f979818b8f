"""All settings: typed, validated, documented; the command line is made from them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cnn.dataset.fit import Fit
from cnn.settings.defaults import DIGITS, merged, regularisation, unscaled
from cnn.settings.ranges import Choice, Integer, LogUniform, Uniform

GIB = 2**30

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Positional:
    """Marks a setting that the command line takes without a flag."""


def split_commas(value: Any) -> Any:
    """`32,64` from the command line, or 32 from a file → a list of strings, for `Numbers`."""
    return str(value).split(",") if isinstance(value, str | int) else value


MOST_FILTERS = 4096

Numbers = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MOST_FILTERS)], ...],
    Field(min_length=1),
    BeforeValidator(split_commas),
]


def absolute(weights: str) -> str:
    """An absolute path, as Ray's workers have other working directories."""
    if "://" in weights:
        raise ValueError("give a file on this machine, not a URI")
    return weights if weights == "default" else str(Path(weights).absolute())


NO_TRUTH = "give a number, not yes or no"


def is_number(annotation: Any) -> bool:
    """Whether a field with this annotation holds a number, or several."""
    return annotation in (int, float) or any(map(is_number, get_args(annotation)))


class Settings(BaseModel):
    """A group of settings: immutable; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """In YAML, `yes`, `on` and `no` are truth values, which Python would take for 1 and 0."""
        several = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(one, bool) for one in several):
            field = cls.model_fields[str(info.field_name)]
            if is_number(field.annotation):
                raise ValueError(NO_TRUTH)
        return value


class Images(Settings):
    """How a folder of images becomes a prepared dataset."""

    image_size: int = Field(64, ge=8, le=1024, description="side of the square images, in pixels")
    fit: Fit = Field(
        "squash", description="squash the whole image into the square, or crop its centre"
    )


class Augmentation(Settings):
    """Strength of the random changes made to training images; 0 turns one off."""

    rotation: float = Field(
        15.0,
        ge=0,
        le=180,
        description="largest rotation, in degrees; smaller by default below 45 epochs",
    )
    shift: Fraction = Field(
        0.15,
        description="largest shift, as a fraction of the side; smaller by default below 45 epochs",
    )
    zoom: Fraction = Field(
        0.3, description="largest zoom in or out, as a fraction; smaller by default below 45 epochs"
    )
    flip: bool = Field(True, description="mirror left to right, with probability 0.5")
    vertical_flip: bool = Field(False, description="mirror top to bottom, with probability 0.5")

    @property
    def blurs(self) -> bool:
        """Whether pixels of training images are interpolated; mirroring only moves them."""
        return bool(self.rotation or self.shift or self.zoom)


class Network(Settings):
    """The network's shape."""

    network: str = Field("cnn", description="`cnn`, or a torchvision model such as resnet18")
    filters: Numbers = Field(
        (32, 64, 128, 256, 256), description="filters in each stage of the cnn, such as 32,64,128"
    )
    convolutions: Annotated[int, Integer(1, 4)] = Field(
        3, ge=1, le=100, description="convolutions in each stage of the cnn"
    )
    residual: bool = Field(
        True, description="residual shortcut around all convolutions of a stage but the first"
    )
    kernel_size: int = Field(3, ge=1, le=31, description="side of the convolution kernels, odd")
    hidden: int = Field(
        0, ge=0, le=65_536, description="units of the hidden fully connected layer; 0: none"
    )
    dropout: Annotated[Fraction, Uniform(0.0, 0.5)] = Field(
        0.3,
        description="dropout before the fully connected layers; smaller by default below 45 epochs",
    )
    normalisation: Literal["batch", "none"] = Field(
        "batch", description="normalisation after each convolution"
    )
    weights: Annotated[str, AfterValidator(absolute)] | None = Field(
        None,
        description="weights file for a torchvision model to start from, or `default` to download",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} is even: give an odd one, such as 3")
        if self.weights and self.network == "cnn":
            raise ValueError(
                "weights are for torchvision models: give one, such as --network resnet18"
            )
        return self


CNN_ONLY = frozenset(Network.model_fields) - {"network", "weights"}  # torchvision's have their own


class Training(Settings):
    """How the network is trained."""

    epochs: int = Field(45, ge=1, le=1_000_000, description="passes over the training images")
    batch_size: Annotated[int, Choice((32, 64, 128))] = Field(
        64, ge=2, le=1_000_000, description="images per step, over all workers together"
    )
    optimizer: Annotated[Literal["adamw", "adam", "sgd", "rmsprop"], Choice(("adamw", "sgd"))] = (
        Field("adamw", description="optimizer (sgd has Nesterov momentum 0.9)")
    )
    lr: Annotated[float, LogUniform(5e-4, 2e-2)] = Field(
        3e-3, gt=0, description="peak learning rate"
    )
    weight_decay: Annotated[float, LogUniform(1e-3, 0.2)] = Field(
        0.15, ge=0, description="weight decay, except of norms and biases; chosen for adamw"
    )
    warmup: Fraction = Field(
        0.1, description="fraction of the steps over which the learning rate rises to its peak"
    )
    growing: Fraction = Field(
        0.7,
        description="progressive resizing: fraction of the epochs trained on smaller images, half "
        "the side, then three quarters; such steps cost about a third and 0.6 of a full one",
    )
    clip: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    label_smoothing: Fraction = Field(
        0.1, description="probability that is spread evenly over all classes"
    )
    cutmix: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="fraction of the images with CutMix: a square of another image, up to half "
        "the area, and both labels in proportion; smaller by default below 45 epochs",
    )
    balance: Literal["none", "loss", "sampling"] = Field(
        "none", description="for unequal classes: weight the loss, or draw rare classes more often"
    )
    test_time_flip: bool = Field(
        True,
        description="test-time augmentation, if training flips images: average the predictions "
        "for an image and its mirror image; about a point more accurate, twice the compute",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="early stopping after this many epochs without a better validation accuracy",
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        description="time limit for training, of each trial in a search; the schedule is "
        "shortened to fit",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="arithmetic of the forward pass; auto: bfloat16 if the hardware supports it",
    )


def image_bytes(images: int, image_size: int) -> int:
    """Bytes of so many square RGB images of this side, as uint8."""
    return images * 3 * image_size**2


class Resources(Settings):
    """What a run may use."""

    workers: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="training processes [default: one per GPU, or 1; in a search 1 per trial]",
    )
    gpu: bool | None = Field(None, description="train on GPUs [default: if there are any]")
    memory: float = Field(
        4.0, ge=0, description="GiB of images a worker may hold; a larger split is streamed"
    )

    def fits_in_memory(self, images: int, image_size: int) -> bool:
        """Whether a worker may hold this many images in memory; if not, they are streamed."""
        return image_bytes(images, image_size) <= self.memory * GIB


class Pool(Settings):
    """What scoring may use."""

    batch_size: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="images per forward pass [default: 4 megapixels; on a CPU at most 128 images]",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="scoring processes [default: one per GPU, or without GPUs one per CPU]",
    )
    gpu: bool | None = Field(None, description="score on GPUs [default: if there are any]")
    gpu_fraction: float = Field(
        1.0, gt=0, le=1, description="share of a GPU that each process takes"
    )


class Search(Settings):
    """How settings are searched for."""

    trials: int = Field(
        16,
        ge=1,
        le=100_000,
        description="how many settings to try; the first trial has the given ones",
    )
    algorithm: Literal["tpe", "random"] = Field(
        "tpe", description="propose trials from the results of earlier ones (TPE), or at random"
    )
    grace: int | None = Field(
        None,
        ge=1,
        description="epochs of the longest trial before it may be stopped early; shorter ones in "
        "proportion [default: a twelfth of them, at least 1]",
    )
    reduction: int = Field(
        3,
        ge=2,
        description="keep one in this many trials at each rung; rungs are this factor of epochs "
        "apart",
    )
    space: str | None = Field(
        None, description="YAML file of the ranges to search, instead of the default ones"
    )
    concurrent: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="trials at once [default: as many as the cluster has room for]",
    )
    gpu_fraction: float = Field(1.0, gt=0, le=1, description="share of a GPU that a trial takes")
    retrain: bool = Field(
        False, description="train again with the best settings, on training and validation images"
    )


class PrepareConfig(Settings):
    """Decode a folder of images once, into a prepared dataset."""

    images: Annotated[str, Positional] = Field(
        description="folder with a subfolder of images per class; local, or a URI such as s3://…",
    )
    out: str = Field(description="folder to write the prepared dataset to")
    data: Images = Images()


def epochs_of(values: dict[str, Any]) -> int:
    """The epochs in unchecked settings; the default if the training settings are invalid."""
    try:
        return Training.model_validate(values.get("training", {})).epochs
    except ValidationError:
        return Training().epochs


def usual() -> dict[str, Any]:
    """The defaults of a training of the usual length, by group."""
    groups: dict[str, Settings] = {
        "augmentation": Augmentation(), "network": Network(), "training": Training()
    }  # fmt: skip
    return {name: group.model_dump() for name, group in groups.items()}


class Experiment(Settings):
    """What training runs and searches share."""

    images: Annotated[str | None, Positional] = Field(
        None,
        description="folder with a subfolder of images per class, or a prepared dataset; local, or "
        "a URI such as s3://… [default: the embedded handwritten digits]",
    )
    out: str | None = Field(
        None, description="folder of this run [default: runs/NAME, after the images' folder]"
    )
    prepared: str | None = Field(
        None, description="folder that keeps prepared datasets [default: `prepared` beside --out]"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="random seed of the split, the weights, the order and the augmentation",
    )
    data: Images = Images()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    training: Training = Training()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, values: Any) -> Any:
        """Fill in the defaults that fit the images and the epochs."""
        if not isinstance(values, dict):
            return values
        if values.get("images") is None:
            values = merged(DIGITS, values)
        return merged(regularisation(epochs_of(values), usual()), values)

    @classmethod
    def for_other_epochs(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file's values, without those that it has only because of its number of epochs.

        A file that names no epochs was not saved by a run: somebody has chosen what it holds.
        """
        training = values.get("training")
        if not isinstance(training, dict) or "epochs" not in training:
            return values
        return unscaled(values, epochs_of(values), usual())

    @model_validator(mode="after")
    def _check(self) -> Self:
        workers, batch_size = self.resources.workers or 1, self.training.batch_size
        if batch_size % workers:
            raise ValueError(
                f"batch_size {batch_size} cannot be split evenly among {workers} workers: "
                f"give a multiple of {workers}"
            )
        if batch_size < 2 * workers:
            raise ValueError(
                f"batch_size {batch_size} leaves each of {workers} workers one image, and batch "
                f"norm needs two: give {2 * workers} or more"
            )
        return self


class TrainConfig(Experiment):
    """Train a classifier on a folder of images, evaluate it on the test split, write a report."""

    # Of one command, not of a run: config.yaml does not hold them.
    dry_run: bool = Field(
        False,
        exclude=True,
        description="list and count the images, show the plan, time a few steps, and stop",
    )
    preview: bool = Field(
        False,
        exclude=True,
        description="write a page of augmented images, beside --out, and stop",
    )

    @model_validator(mode="after")
    def _check_stop(self) -> Self:
        if self.dry_run and self.preview:
            raise ValueError("--dry-run and --preview both stop before training: give one of them")
        return self


class TuneConfig(Experiment):
    """Search for better settings than those given; evaluate the best model on the test split."""

    out: str | None = Field(
        None,
        description="folder of this run [default: runs/NAME-tune, after the images' folder]",
    )
    search: Search = Search()

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.search.gpu_fraction < 1 and (self.resources.workers or 1) > 1:
            raise ValueError(
                "a trial of several workers needs a whole GPU for each: leave out --gpu-fraction, "
                "or give --workers 1"
            )
        return self

    def given(self) -> TrainConfig:
        """The settings that the search starts from, as those of a training run."""
        shared = {name: getattr(self, name) for name in Experiment.model_fields}
        return TrainConfig(**shared | {"out": None})


class ScoreConfig(Settings):
    """Score folders of images with a trained model; evaluate it if the images are labelled."""

    model: Annotated[str, Positional] = Field(
        description="folder of a model (model.json, model.safetensors), or of the run that made it"
    )
    images: Annotated[tuple[str, ...], Positional] = Field(
        min_length=1, description="folders of images; local, or URIs such as s3://…"
    )
    out: str = Field(description="folder to write predictions and report to")
    labels: str | None = Field(
        None, description="CSV file with the columns path and label, for images in flat folders"
    )
    tta: bool | None = Field(
        None,
        description="test-time augmentation: average the predictions for an image and its mirror "
        "image, for twice the compute [default: as the model was evaluated after training]",
    )
    min_confidence: Fraction | None = Field(
        None,
        description="confidence threshold: predictions below it are uncertain, listed for review",
    )
    compare: str | None = Field(
        None,
        description="folder of another run that scored the same images: report what changed "
        "between the two models",
    )
    sort_into: str | None = Field(
        None,
        description="folder to link or copy images into: in a subfolder per predicted class, those "
        "below --min-confidence in `uncertain`, unreadable ones nowhere",
    )
    pool: Pool = Pool()
