"""Every setting on one page: typed, validated, documented; the command line is made from it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cnn.defaults import DIGITS, merged, regularisation
from cnn.ranges import Choice, Integer, LogUniform, Uniform

GIB = 2**30

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Positional:
    """Marks a setting that the command line takes without a flag."""


def split_commas(value: Any) -> Any:
    """`32,64` as the command line gives it, or 32 of a file → a list, of which come numbers."""
    return str(value).split(",") if isinstance(value, str | int) else value


Numbers = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), BeforeValidator(split_commas)
]


def absolute(weights: str) -> str:
    """A file's whole path: Ray's workers have working directories of their own."""
    return weights if weights == "default" else str(Path(weights).absolute())


class Settings(BaseModel):
    """A group of settings; unknown names are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Images(Settings):
    """How a folder of images becomes a prepared dataset."""

    image_size: int = Field(64, ge=8, le=1024, description="side of the square images, pixels")
    fit: Literal["squash", "crop"] = Field(
        "squash", description="squash the whole image into the square, or crop its centre"
    )


class Augmentation(Settings):
    """Strength of the random changes made to training images; 0 turns one off."""

    rotation: float = Field(
        15.0, ge=0, le=180, description="largest rotation, degrees; by default less of few epochs"
    )
    shift: Fraction = Field(
        0.15, description="largest shift, as a fraction of the side; by default less of few epochs"
    )
    zoom: Fraction = Field(
        0.3, description="largest zoom in or out, as a fraction; by default less of few epochs"
    )
    flip: bool = Field(True, description="mirror left to right, half of the time")
    vertical_flip: bool = Field(False, description="mirror top to bottom, half of the time")

    @property
    def blurs(self) -> bool:
        """Whether pixels of training images are interpolated: a mirror image has the same ones."""
        return bool(self.rotation or self.shift or self.zoom)


class Network(Settings):
    """The network's shape."""

    network: str = Field("cnn", description="`cnn`, or a torchvision model such as resnet18")
    filters: Numbers = Field(
        (32, 64, 128, 256, 256), description="filters in each stage of the cnn, as 32,64,128"
    )
    convolutions: Annotated[int, Integer(1, 4)] = Field(
        3, ge=1, description="convolutions in each stage of the cnn"
    )
    residual: bool = Field(
        True, description="a shortcut around all but the first convolution of a stage"
    )
    kernel_size: int = Field(3, ge=1, description="side of a convolution's kernel, odd")
    hidden: int = Field(0, ge=0, description="units of the hidden fully connected layer, 0: none")
    dropout: Annotated[Fraction, Uniform(0.0, 0.5)] = Field(
        0.3,
        description="dropout before the fully connected layers; by default less of few epochs",
    )
    normalisation: Literal["batch", "none"] = Field(
        "batch", description="what follows each convolution"
    )
    weights: Annotated[str, AfterValidator(absolute)] | None = Field(
        None,
        description="start a torchvision model from a weights file, or `default` to download",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} is even: take an odd one, such as 3")
        if self.weights and self.network == "cnn":
            raise ValueError("weights start a torchvision model: name one, as --network resnet18")
        return self


class Training(Settings):
    """How the network is trained."""

    epochs: int = Field(45, ge=1, description="passes over the training images")
    batch_size: Annotated[int, Choice((32, 64, 128))] = Field(
        64, ge=2, description="images per step, over all workers together"
    )
    optimizer: Annotated[Literal["adamw", "adam", "sgd", "rmsprop"], Choice(("adamw", "sgd"))] = (
        Field("adamw", description="optimizer (sgd has Nesterov momentum 0.9)")
    )
    lr: Annotated[float, LogUniform(5e-4, 2e-2)] = Field(
        3e-3, gt=0, description="peak learning rate"
    )
    weight_decay: Annotated[float, LogUniform(1e-3, 0.2)] = Field(
        0.05, ge=0, description="decay of weights, not of norms or biases"
    )
    warmup: Fraction = Field(0.1, description="fraction of the steps in which the rate rises")
    growing: Fraction = Field(
        0.7,
        description="fraction of the epochs that look at smaller images: of half the side, then "
        "of three quarters; a step then costs 0.4 and 0.65 of one at the whole side",
    )
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    label_smoothing: Fraction = Field(0.1, description="probability spread over the other classes")
    cutmix: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="fraction of the steps in which each image gets a square of another one, up "
        "to half of its area, and has both labels by their parts; by default less of few epochs",
    )
    balance: Literal["none", "loss", "sampling"] = Field(
        "none", description="for unequal classes: weigh the loss, or draw rare classes more often"
    )
    test_time_flip: bool = Field(
        True,
        description="where training flips images, let the model judge an image and its mirror "
        "image together: about a point more accurate, twice the arithmetic",
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better validation accuracy"
    )
    max_minutes: float | None = Field(
        None, gt=0, description="time for training, at most; the schedule is fitted to it"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic; auto takes bfloat16 where the hardware has it"
    )


class Resources(Settings):
    """What a run may use."""

    workers: int | None = Field(
        None, ge=1, description="training processes [default: one per GPU, or 1; for a trial 1]"
    )
    gpu: bool | None = Field(None, description="train on GPUs [default: where there are any]")
    memory: float = Field(
        4.0, ge=0, description="GiB of images a worker may hold; a larger split is streamed"
    )

    def hold(self, images: int, image_size: int) -> bool:
        """Whether a worker keeps this many images in memory; if not, they are streamed."""
        return images * 3 * image_size**2 <= self.memory * GIB


class Pool(Settings):
    """What scoring may use."""

    batch_size: int | None = Field(
        None,
        ge=1,
        description="images per pass through the network [default: 4 megapixels, or on a CPU 128]",
    )
    workers: int | None = Field(
        None, ge=1, description="scoring processes [default: one per GPU, or one per CPU]"
    )
    gpu: bool | None = Field(None, description="score on GPUs [default: where there are any]")
    gpu_fraction: float = Field(
        1.0, gt=0, le=1, description="share of a GPU that each process takes"
    )


class Search(Settings):
    """How settings are searched for."""

    trials: int = Field(16, ge=1, description="settings to try, the given ones first")
    algorithm: Literal["tpe", "random"] = Field(
        "tpe", description="propose trials by what the earlier ones showed (TPE), or at random"
    )
    grace: int | None = Field(
        None,
        ge=1,
        description="epochs that every trial may run [default: a twelfth of --epochs, or 1]",
    )
    reduction: int = Field(
        3, ge=2, description="of so many trials one goes on, each time epochs have multiplied by it"
    )
    space: str | None = Field(
        None, description="YAML file of ranges, instead of those that are searched by default"
    )
    concurrent: int | None = Field(
        None, ge=1, description="trials at once [default: as many as the cluster has room for]"
    )
    gpu_fraction: float = Field(1.0, gt=0, le=1, description="share of a GPU that a trial takes")
    retrain: bool = Field(
        False, description="train the best settings afresh, on training and validation images"
    )


class PrepareConfig(Settings):
    """Decode a folder of images once, into a prepared dataset."""

    images: Annotated[str, Positional] = Field(
        description="folder with a folder of images per class; local, or a URI such as s3://…",
    )
    out: str = Field(description="folder to write the prepared dataset to")
    data: Images = Images()


def epochs_of(values: dict[str, Any]) -> int:
    """The epochs that a page of settings asks for; the default where it is no page yet."""
    try:
        return Training.model_validate(values.get("training", {})).epochs
    except ValidationError:
        return Training().epochs


class Experiment(Settings):
    """What training runs and searches share."""

    images: Annotated[str | None, Positional] = Field(
        None,
        description="folder with a folder of images per class, or a prepared dataset; local, or a "
        "URI such as s3://… [default: the embedded handwritten digits]",
    )
    out: str | None = Field(
        None, description="folder of this run [default: runs/ and the name of the images' folder]"
    )
    prepared: str | None = Field(
        None, description="folder that keeps prepared datasets [default: `prepared` beside --out]"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of the split, the weights, the order, the augmentation",
    )
    data: Images = Images()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    training: Training = Training()
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, values: Any) -> Any:
        """The defaults that fit the images and the epochs, below what is given."""
        if not isinstance(values, dict):
            return values
        if values.get("images") is None:
            values = merged(DIGITS, values)
        usual = {
            "augmentation": Augmentation().model_dump(),
            "network": Network().model_dump(),
            "training": Training().model_dump(),
        }
        return merged(regularisation(epochs_of(values), usual), values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        workers, batch_size = self.resources.workers or 1, self.training.batch_size
        if batch_size % workers:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {workers} workers: "
                f"take a multiple of {workers}"
            )
        if batch_size < 2 * workers:
            raise ValueError(
                f"batch_size {batch_size} leaves each of {workers} workers one image, and batch "
                f"norm needs two: take {2 * workers} or more"
            )
        return self


class TrainConfig(Experiment):
    """Train a classifier on a folder of images, judge it on the test split, write a report."""

    dry_run: bool = Field(
        False, description="list, count, plan, time a few steps, and stop; trains nothing"
    )
    preview: bool = Field(
        False, description="write a page of augmented images, beside --out, and stop"
    )


class TuneConfig(Experiment):
    """Search for better settings than those given, and judge the best model on the test split."""

    out: str | None = Field(
        None,
        description="folder of this run [default: runs/NAME-tune, after the images' folder]",
    )
    search: Search = Search()

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.search.gpu_fraction < 1 and (self.resources.workers or 1) > 1:
            raise ValueError(
                "a trial of several workers takes a GPU for each: leave out --gpu-fraction, "
                "or give --workers 1"
            )
        return self

    def given(self) -> TrainConfig:
        """The settings that the search begins with, as those of a training run."""
        shared = {name: getattr(self, name) for name in Experiment.model_fields}
        return TrainConfig(**shared | {"out": None})


class ScoreConfig(Settings):
    """Score folders of images with a trained model; judge it where the images are labelled."""

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
        description="judge an image and its mirror image together, for twice the arithmetic "
        "[default: as the model was judged after training]",
    )
    min_confidence: Fraction | None = Field(
        None, description="predictions below it are uncertain: listed for a person to look at"
    )
    compare: str | None = Field(
        None,
        description="folder of another run that has scored the same images: report what changed "
        "between the two models",
    )
    sort_into: str | None = Field(
        None, description="folder in which to link or copy each image below its predicted class"
    )
    pool: Pool = Pool()
