"""The options of a cluster, `conf/cluster/`, which `mil train`, `mil predict` and `mil explain` take beside theirs."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from mil.config import choices, conf_dir, nearest
from mil.errors import ConfigError
from mil.study.component import Config
from mil.yaml_files import read_yaml

GROUP = "cluster"
_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<day_hours>\d+)(?::(?P<day_minutes>\d+)(?::(?P<day_seconds>\d+))?)?"
    r"|(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)|(?P<only_minutes>\d+))"
)
"""The times that sbatch takes: D-HH, D-HH:MM, D-HH:MM:SS, HH:MM:SS, MM:SS and minutes."""
_WORD = re.compile(r"\+{0,2}cluster(\.\w+)*=.*", re.DOTALL)
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_MAPPING = re.compile(r"\{(.*)\}", re.DOTALL)


def minutes(time: str) -> int:
    """Return a time limit as sbatch writes it in minutes, rounded up.

    Raises:
        ValueError: It is none of sbatch's formats, or no time at all.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(time)
    days, hours, whole_minutes, seconds = (
        sum(int(match[name] or 0) for name in names)
        for names in (
            ("days",),
            ("day_hours", "hours"),
            ("day_minutes", "minutes", "only_minutes"),
            ("day_seconds", "seconds"),
        )
    )
    total = math.ceil(((days * 24 + hours) * 60 + whole_minutes) + seconds / 60)
    if not total:
        raise ValueError(time)
    return total


def _time(value: str) -> str:
    try:
        minutes(value)
    except ValueError:
        raise PydanticCustomError("time", "minutes, HH:MM:SS or D-HH:MM:SS, such as 04:00:00") from None
    return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]
Count = Annotated[int, Field(ge=1)]


class ClusterOptions(Config):
    """Where jobs run, and what each of them gets.

    Attributes:
        engine: `slurm`, or `local`: processes of this machine.
        partition: Where jobs are queued; None leaves it to the cluster.
        time: Time limit of each job, in sbatch's formats.
        cpus: Cores of each job, which are its threads; None leaves both to the cluster.
        memory: Gigabytes of each job.
        gpus: GPUs of each job.
        account: Whom the time is charged to.
        qos: Quality of service.
        constraint: What nodes must have.
        most: Jobs of an array that run at the same time.
        warning: Seconds before the time limit at which a job is told to save its state.
        shards: Parts of the patients of a prediction or explanation.
        setup: Shell lines before each job.
        sbatch: Further options of sbatch.
    """

    engine: Literal["slurm", "local"]
    partition: Text | None = None
    time: Annotated[Text, AfterValidator(_time)] = "01:00:00"
    cpus: Count | None = None
    memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    most: Count = 256
    warning: Count = 120
    shards: Count = 16
    setup: tuple[Text, ...] = ()
    sbatch: dict[str, Text] = Field(default_factory=dict)

    @property
    def minutes(self) -> int:
        """The time limit in minutes."""
        return minutes(self.time)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Validate options.

        Raises:
            ConfigError: An option that does not exist, or a value out of its range.
        """
        if unknown := sorted(set(values) - set(cls.model_fields)):
            near = nearest(unknown[0], list(cls.model_fields), f"{GROUP}.")
            raise ConfigError(f"option '{GROUP}.{unknown[0]}' does not exist{near}")
        try:
            options = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Input should be ")
            raise ConfigError(f"{GROUP}.{name}={first['input']}, expected {message}") from None
        if options.minutes * 60 <= options.warning:
            raise ConfigError(
                f"{GROUP}.warning={options.warning}, expected fewer seconds than a job has, {GROUP}.time={options.time}"
            )
        return options


def divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words about the cluster, and the others."""
    about = [word for word in words if _WORD.fullmatch(word)]
    return about, [word for word in words if word not in about]


def options_in(words: Sequence[str]) -> ClusterOptions | None:
    """Return the options under words such as `cluster=slurm cluster.time=04:00:00`; None where there are none.

    Raises:
        ConfigError: A choice or an option that does not exist, a value out of its range, or options of no cluster.
    """
    if not words:
        return None
    pairs = [(key.lstrip("+"), value) for key, _, value in (word.partition("=") for word in words)]
    names = [value for key, value in pairs if key == GROUP]
    if not names:
        raise ConfigError(f"{pairs[0][0]}: without a cluster, expected {GROUP}=slurm")
    if names[-1] == "null":
        return None
    if names[-1] not in choices(GROUP):
        near = nearest(names[-1], choices(GROUP))
        raise ConfigError(f"{GROUP}={names[-1]} does not exist{near}, expected one of {', '.join(choices(GROUP))}")
    values = read_yaml(conf_dir() / GROUP / f"{names[-1]}.yaml")
    assert isinstance(values, dict)
    given = {key.removeprefix(f"{GROUP}."): _value(value) for key, value in pairs if key != GROUP}
    nested = {key: value for key, value in given.items() if "." not in key}
    for key, value in given.items():
        outer, dot, inner = key.partition(".")
        if dot:
            values[outer] = {**values.get(outer, {}), inner: value}
    return ClusterOptions.parse({str(key): value for key, value in (values | nested).items()})


def _value(text: str) -> object:
    """Return a word's value as text, a list of texts, a mapping, or None for `null`; a time is no yaml number."""
    if text == "null":
        return None
    if match := _LIST.fullmatch(text):
        return [item.strip().strip("'\"") for item in match[1].split(",") if item.strip()]
    if match := _MAPPING.fullmatch(text):
        pairs = [item.partition(":") for item in match[1].split(",") if item.strip()]
        return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs}
    return text.strip("'\"")
