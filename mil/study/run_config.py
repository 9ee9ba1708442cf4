"""The configuration of a run, typed and validated: everything that `conf/train.yaml` composes.

A `RunConfig` is made from the command line (`mil.study.compose.compose`), from keyword arguments (`mil.fit`) or from
the `config.yaml` of a run folder (`mil.study.compose.read_config`). It never changes; `replaced` returns a changed
copy.

Parts of a run that are chosen by class (model, optimizer, split, ...) are a `Component`: the class's import path and
the keyword arguments of its constructor. In yaml a component is a mapping with the key `_target_`, as Hydra has it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mil.config import groups, nearest
from mil.errors import ConfigError
from mil.features import formats
from mil.features.feature_folders import joined_text
from mil.study.component import TARGET, Component, Config, Options, Positive, Text
from mil.study.tool import Tool
from mil.yaml_files import read_yaml


def _layout(value: str) -> str:
    if value not in formats.names():
        raise PydanticCustomError("layout", "{names}", {"names": " or ".join(("null", *formats.names()))})
    return value


def _listed(value: object) -> object:
    """Return a single name as a list of one, and none as an empty list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | int | float) else value


def _features(value: object) -> object:
    """Return folders of several encoders, `[NAME=DIR, NAME=DIR]`, as one text; see `mil.features.feature_folders`."""
    return joined_text([str(entry) for entry in value]) if isinstance(value, list | tuple) else value


def _labels(value: object) -> object:
    """Return what the words of columns mean; a path is read as a yaml file that holds it."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = read_yaml(Path(value))
    if not isinstance(value, Mapping) or not all(isinstance(words, Mapping) for words in value.values()):
        example = "data.labels.MSI={MSI-H: high, MSS: low} or a yaml file with MSI: {MSI-H: high, MSS: low}"
        raise PydanticCustomError("labels", "{example}", {"example": f"words by column, such as {example}"})
    return value


def _devices(value: object) -> object:
    """Check `trainer.devices`: a number, or a list of indices of GPUs."""
    if value == "auto":
        return 1
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool) and number > 0:
        return number if number > 1 else value
    indices = value if isinstance(value, list | tuple) else ()
    if indices and all(_is_index(index) for index in indices) and len(set(indices)) == len(indices):
        return value
    raise PydanticCustomError("devices", "a number of devices such as 2, or a list of GPUs such as [0,1]")


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _single(value: object) -> object:
    """Check `trainer.num_nodes`, which has one value that works."""
    if value in (1, "auto"):
        return value
    raise PydanticCustomError("devices", "auto or 1: a run trains on the devices of one node")


def _strategy(value: object) -> object:
    """Check `trainer.strategy`."""
    if value in ("auto", "ddp"):
        return value
    raise PydanticCustomError("devices", "auto or ddp: each device has all weights, and a part of each batch")


def _precision(value: object) -> object:
    """Check a precision in which weights stay in single precision."""
    if value is None or str(value) in PRECISIONS:
        return value
    raise PydanticCustomError(
        "precision", "{names}: weights are kept in single precision", {"names": " or ".join(PRECISIONS)}
    )


def _factor(value: object) -> object:
    """Check `model.trunk_lr`."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1):
        return value
    raise PydanticCustomError("factor", "null or a number from 0 to 1")


def _fraction_of_batches(value: object) -> object:
    """Check `trainer.limit_train_batches`: without a batch nothing is trained."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if is_number and (isinstance(value, int) or (isinstance(value, float) and value <= 1)):
        return value
    raise PydanticCustomError("batches", "a fraction up to 1.0, or a number of batches")


def _most_steps(value: object) -> object:
    """Check `trainer.max_steps`: without a step nothing is trained."""
    if isinstance(value, int) and not isinstance(value, bool) and (value == -1 or value > 0):
        return value
    raise PydanticCustomError("steps", "a number of steps, or -1 for no limit")


def _share_of_an_epoch(value: object) -> object:
    """Check `trainer.val_check_interval`."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1):
        return value
    raise PydanticCustomError("share", "null or a fraction of an epoch up to 1.0")


def _nothing_left_out(value: object) -> object:
    """Check options of Lightning's that train or select on a few batches, and say so in no report."""
    if not value:
        return value
    raise PydanticCustomError("batches", "{text}", {"text": "false: for a short trial, experiment=quick"})


PRECISIONS = ("auto", "32-true", "32", "bf16-mixed", "16-mixed")
MOST_PROCESSES, MOST_RESAMPLES = 1024, 10**6
"""More processes fill a machine, and more resamples its memory, before anything says so."""
MOST_MEMBERS = 20
"""Networks of an ensemble: a checkpoint has a largest number of tensors."""
MOST_SEED = 2**32 - 1
"""The largest seed that every library takes."""
Natural = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MOST_SEED)]
Count = Annotated[int, Field(strict=True, ge=1)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
AtLeastTwo = Annotated[int, Field(strict=True, ge=2)]
Flag = Annotated[bool, Field(strict=True)]
Layout = Annotated[str, AfterValidator(_layout)]


class SplitOptions(Options):
    """Arguments of `mil.splits` strategies that have a range."""

    folds: AtLeastTwo = 5
    inner: AtLeastTwo = 4
    repeats: Count = 1
    smallest: Count = 20
    select: Positive = 0.2
    report: Positive = 0.25
    file: str | None = None
    column: Text | None = None


class OptimizerOptions(Options):
    """Arguments of torch optimizers that have a range."""

    lr: Positive | None = None


class TrainerOptions(Options):
    """Arguments of `lightning.pytorch.Trainer` that have a range or that training reads."""

    max_epochs: Count = 1000
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Positive | None = None
    precision: Annotated[str | int | None, BeforeValidator(_precision)] = None
    enable_progress_bar: bool = True
    devices: Annotated[Any, BeforeValidator(_devices)] = 1
    num_nodes: Annotated[Any, BeforeValidator(_single)] = 1
    strategy: Annotated[Any, BeforeValidator(_strategy)] = "auto"
    limit_train_batches: Annotated[Any, BeforeValidator(_fraction_of_batches)] = 1.0
    limit_val_batches: int | float | None = None
    min_epochs: Natural | None = None
    max_steps: Annotated[Any, BeforeValidator(_most_steps)] = -1
    check_val_every_n_epoch: Count | None = 1
    val_check_interval: Annotated[Any, BeforeValidator(_share_of_an_epoch)] = None
    log_every_n_steps: Natural | None = None
    fast_dev_run: Annotated[Any, BeforeValidator(_nothing_left_out)] = False
    overfit_batches: Annotated[Any, BeforeValidator(_nothing_left_out)] = 0.0

    @property
    def device_count(self) -> int:
        """How many devices train together."""
        return len(self.devices) if isinstance(self.devices, list | tuple) else int(self.devices)

    @property
    def by_bag(self) -> bool:
        """Whether dropout is drawn for each bag, as several devices do: the result is that of any number of them."""
        return self.strategy == "ddp" or self.device_count > 1


class CallbackOptions(Options):
    """Arguments of Lightning's callbacks that have a range; they are compared only after an epoch."""

    patience: Natural = 3
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class ModelOptions(Options):
    """How encoders are read and weights start, besides the arguments of a model's constructor.

    Attributes:
        encoders: How features of several encoders are read: side by side by one model, or by an ensemble with one model
            for each encoder, whose logits are averaged.
        members: Networks that are trained side by side and differ by their random start; the model is their mean.
        pretrained: A checkpoint whose weights training starts from; the layers that give the logits start anew.
        trunk_lr: Factor of the learning rate of all other layers; 0 leaves them as they are, 1 treats all alike.
    """

    encoders: Literal["concatenate", "ensemble"] = "concatenate"
    members: Annotated[Count, Field(le=MOST_MEMBERS)] = 1
    pretrained: str | None = None
    trunk_lr: Annotated[Any, BeforeValidator(_factor)] = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {name: value for name, value in self.keywords().items() if name not in ModelOptions.model_fields}


class EncoderOptions(Options):
    """Arguments of `mil.features.encoders.Encoder`; `auto` takes the encoder from the feature files."""

    name: str
    dim: Count | None = None
    mpp: Positive | None = None
    tile_px: Positive | None = None


class EncoderComponent(Component[EncoderOptions]):
    """The encoder that made the features."""

    target: str = "mil.features.encoders.Encoder"


class ColumnNames(Config):
    """What the tables call their ids; None looks for a common name."""

    patient: Text | None = None
    slide: Text | None = None
    site: Text | None = None
    mpp: Text | None = None


class DataConfig(Config):
    """`conf/data/default.yaml`: where the cohort is, how its files are read, and how batches are made of it."""

    cohort: str | None = None
    slides: str | None = None
    features: Annotated[str | None, BeforeValidator(_features)] = None
    layout: Layout | None = None
    batch_axis: Flag = False
    slide_mpp: Positive | None = None
    table: Text | None = None
    name: Text | None = None
    columns: ColumnNames = ColumnNames()
    labels: Annotated[dict[Text, dict[Any, Any]], BeforeValidator(_labels)] = Field(default_factory=dict)
    covariates: Annotated[list[Text], BeforeValidator(_listed)] = Field(default_factory=list)
    bag: Literal["patient", "slide"] = "patient"
    batch_bags: Count = 4
    tiles_per_batch: Count | None = None
    whole_cohort: Flag = False
    passes: Count = 1
    max_tiles: Count | None = None
    balance: Literal["none", "loss", "sampling"] = "none"
    on_missing: Literal["error", "skip"] = "error"
    on_bad_bag: Literal["error", "skip"] = "error"
    memory: Natural = 0  # runs made before the option existed read every epoch anew
    workers: Annotated[Natural, Field(le=MOST_PROCESSES)] | None = None
    cache: Text | None = None
    cache_dtype: Literal["float16", "bfloat16"] | None = None
    cache_gib: Positive | None = None


class SelectionConfig(Config):
    """How the patients of model selection choose the epoch whose weights count; see `mil.training.epoch_choice`.

    Runs made before these options existed kept the weights of the last step of the epoch with the lowest loss.

    Attributes:
        best_epochs: So many epochs with the lowest losses are averaged, of few epochs at most half; 1 takes the lowest.
        moving_average: Epochs over which the weights are averaged; 0 takes those of the last step.
        refit: Parts of the patients of training and model selection, each of which is predicted by networks of the
            others, to find the number of epochs with the lowest loss; then all of them train. None trains once.
    """

    best_epochs: Count = 1
    moving_average: NotNegative = 0.0
    refit: AtLeastTwo | None = None


class ToolConfig(Tool):
    """A tool that can be trained: it has a name and an endpoint."""

    name: str
    endpoint: Component[Options]


class RunConfig(Config):
    """Every option of a run.

    Attributes:
        seed: Seed of weights, order of batches, dropout, tile sampling and folds.
        baseline: Whether a linear model on mean features is fitted on the same folds.
        resamples: Bootstrap resamples of every interval.
        figures: Whether figures are drawn after training.
        parallel: Folds that are trained at the same time, in processes of their own; of a sweep, runs.
        simulation: The cohort that is simulated where `data.cohort` is not given.
        model: The network; `in_dim` and `out_dim` are filled in from features and endpoint.
        encoder: The encoder that made the features.
        data: Files, columns, batches.
        selection: How the epoch is chosen whose weights count.
        split: How patients are divided into training, model selection and final test.
        optimizer: The optimizer, without its parameters.
        schedule: The factor of the learning rate at each step.
        trainer: Lightning's trainer.
        logger: Lightning's logger; `save_dir` is filled in.
        callbacks: Further callbacks of the trainer, by a name of one's choice.
        tool: The question, its endpoint, and what the card says.
    """

    seed: Seed
    baseline: Flag
    resamples: Annotated[Count, Field(le=MOST_RESAMPLES)]
    figures: Flag = True
    parallel: Count = 1
    simulation: Component[Options]
    model: Component[ModelOptions]
    encoder: EncoderComponent
    data: DataConfig
    selection: SelectionConfig = SelectionConfig()
    split: Component[SplitOptions]
    optimizer: Component[OptimizerOptions]
    schedule: Component[Options]
    trainer: Component[TrainerOptions]
    logger: Component[Options]
    callbacks: dict[str, Component[CallbackOptions]] = Field(default_factory=dict)
    tool: ToolConfig

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate nested options.

        Raises:
            ConfigError: An option that does not exist, has no value or a value out of its range; one line with its
                name, the value found, and what was expected.
        """
        try:
            _refuse_nan(values)
            return cls.model_validate(values)
        except ValidationError as error:
            raise _explain(error.errors(include_url=False)[0], values) from None

    def replaced(self, values: Mapping[str, object]) -> Self:
        """Return a copy with some options changed.

        Args:
            values: New values by dotted name, such as `{"data.features": "features/"}`.

        Raises:
            ConfigError: As `parse`.
        """
        changed = self.plain()
        for key, value in values.items():
            *parents, name = key.split(".")
            node = changed
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = value
        return self.parse(changed)


def _refuse_nan(values: object, key: str = "") -> None:
    """Refuse options that are not a number, wherever they stand: nothing that is computed with one is a number.

    Raises:
        ConfigError: The option, by its name.
    """
    if isinstance(values, float) and math.isnan(values):
        raise ConfigError(f"{key}=nan, expected a number")
    items: Iterable[tuple[object, object]] = ()
    if isinstance(values, Mapping):
        items = values.items()
    elif isinstance(values, list | tuple):
        items = enumerate(values)
    for name, value in items:
        _refuse_nan(value, f"{key}.{name}" if key else str(name))


def dotted_keys(values: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every option, outer ones first."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted_keys(value, f"{prefix}{key}.")


def unknown_option(key: str, values: Mapping[str, object]) -> ConfigError:
    """Return the error for an option that does not exist, with the nearest name that does."""
    names = [
        name
        for name in (*dotted_keys(values), *groups())
        if not (f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}."))
    ]
    return ConfigError(f"option {key!r} does not exist{nearest(key, names)}")


def _explain(error: ErrorDetails, values: Mapping[str, object]) -> ConfigError:
    """Return pydantic's error in the words of the command line."""
    names = [TARGET if part == "target" else str(part) for part in error["loc"] if part != "options"]
    key, value = ".".join(names), error["input"]
    if error["type"] == "missing" or (len(names) == 1 and value is None):
        return ConfigError(f"{key} has no value: give {key}=...")
    if error["type"] == "extra_forbidden":
        return unknown_option(key, values)
    as_yaml = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return ConfigError(f"{key}={as_yaml}, expected {_expected(error)}")


def _expected(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    match error["type"]:
        case "int_type" | "int_parsing" | "int_from_float":
            return "a whole number"
        case "less_than_equal":
            return f"a whole number up to {limits['le']}"
        case "greater_than_equal":
            kind = "whole number" if isinstance(limits["ge"], int) else "number"
            return f"a {kind} of at least {limits['ge']:g}"
        case "bool_type":
            return "true or false"
        case "literal_error":
            return str(limits["expected"]).replace("'", "")
        case "positive" | "layout" | "labels" | "devices" | "precision" | "batches":
            return error["msg"]
        case "string_type":
            return "one text or path, not a list" if isinstance(error["input"], list | tuple) else "text"
        case "list_type" | "tuple_type":
            return "a list such as [a,b]"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "names with values, such as {a: b}"
        case _:
            return error["msg"].removeprefix("Input should be ")
