"""Every value of the configuration, for the reference: its type, default, unit and meaning.

Types come from the classes that check the values, defaults and comments from the files of `conf/`, and the meanings
that no comment gives from the docstrings of the classes.
"""

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.utils import get_class
from pydantic import BaseModel

from mil import config
from mil.cluster.cluster_options import ClusterOptions
from mil.federation.federation_options import FederationOptions, Share
from mil.study.component import Positive, Text
from mil.study.run_config import (
    AtLeastTwo,
    Count,
    DataConfig,
    Flag,
    Layout,
    Natural,
    OptimizerOptions,
    RunConfig,
    Seed,
    SplitOptions,
    TrainerOptions,
)
from mil.study.tool import Tool

NAMED = (
    (Flag, "true or false"),
    (Count, "whole number from 1"),
    (AtLeastTwo, "whole number from 2"),
    (Natural, "whole number from 0"),
    (Seed, "whole number from 0 to 4,294,967,295"),
    (Positive, "number above 0"),
    (Share, "number from 0 to below 1"),
    (Text, "text"),
    (Layout, "name of a layout"),
)
PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "any"}
UNITS = {
    "attempts": "times",
    "batch_bags": "bags",
    "clip": "norm",
    "cpus": "cores a job",
    "cell_minimum": "patients",
    "dim": "channels",
    "cache_gib": "GiB",
    "dropout": "share of units",
    "floor": "share of the learning rate",
    "folds": "folds",
    "gpus": "GPUs a job",
    "grid": "months",
    "inner": "folds",
    "label_noise": "share of labels",
    "local_epochs": "epochs",
    "max_epochs": "epochs",
    "max_tiles": "tiles a bag",
    "median_tiles": "tiles a slide",
    "memory": "GiB",
    "minimum": "patients",
    "most": "jobs",
    "mpp": "µm a pixel",
    "noise": "multiples of clip",
    "norm_bound": "norm",
    "passes": "passes an epoch",
    "patience": "epochs",
    "patients": "patients",
    "prevalences": "share of patients",
    "quorum": "sites",
    "repeats": "repeats",
    "report": "share of patients",
    "resamples": "resamples",
    "seconds": "seconds",
    "select": "share of patients",
    "shards": "parts",
    "slide_mpp": "µm a level-0 pixel",
    "slides": "slides a patient",
    "smallest": "patients",
    "thresholds": "probability",
    "tile_px": "pixels",
    "tiles": "tiles a slide",
    "tiles_per_batch": "tiles a step",
    "times": "the endpoint's unit of time",
    "warmup": "share of all steps",
    "warning": "seconds",
    "width": "channels",
    "workers": "processes",
}
"""Units by the option's name; further options are counts without a unit, names, switches or pure numbers."""
UNITLESS = {"data.slides", "federation.times", "tool.tiles"}
"""Options that share a name with one that has a unit."""
FILLED_IN = {"self", "args", "kwargs", "target", "save_dir"}
"""Arguments of constructors that no option sets."""
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>[^#]*?)\s*(?:# ?(?P<comment>.*))?$")
_MORE = re.compile(r"^ +# ?(.*)$")
_MEANING = re.compile(r"^ {4}(?:    )?(\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """A value that can be set."""

    name: str
    kind: str
    default: str
    meaning: str

    @property
    def unit(self) -> str:
        """The unit of the value; a dash where it has none."""
        return "–" if self.name in UNITLESS else UNITS.get(self.name.rpartition(".")[2], "–")

    @property
    def row(self) -> str:
        """The option as a row of a table."""
        cells = (f"`{self.name}`", self.kind, f"`{self.default}`", self.unit, self.meaning)
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


HEAD = ("| option | type | default | unit | meaning |", "|---|---|---|---|---|")


def options() -> Iterator[tuple[str, str, list[Option]]]:
    """Yield heading, introduction and options of each part of the configuration."""
    train = comments(config.conf_dir() / "train.yaml")
    yield (
        "The run",
        "`conf/train.yaml`.",
        list(_of_model(RunConfig, train, only=("seed", "baseline", "resamples", "figures"))),
    )
    simulation = yaml.safe_load((config.conf_dir() / "train.yaml").read_text(encoding="utf-8"))["simulation"]
    yield (
        "simulation",
        "The cohort that is simulated where `data.cohort` is not given; a tool of the zoo sets its own sizes.",
        list(_of_class("simulation", simulation, {key: text for key, text in train.items() if key[0] == "simulation"})),
    )
    data = comments(config.conf_dir() / "data" / "default.yaml", "data")
    yield "data", "`conf/data/default.yaml`.", list(_of_model(DataConfig, data, "data"))
    for group in ("trainer", "split", "optimizer", "schedule", "logger"):
        for name in config.choices(group):
            path = config.conf_dir() / group / f"{name}.yaml"
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
            title = group if group == "trainer" else f"{group}={name}"
            yield title, introduction(path, node), list(_of_class(group, node, comments(path, group)))
    for name in config.choices("callbacks"):
        path = config.conf_dir() / "callbacks" / f"{name}.yaml"
        texts = comments(path, "callbacks")
        parts = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items()
        rows = [row for key, node in parts for row in _of_class(f"callbacks.{key}", node, texts)]
        yield f"callbacks={name}", introduction(path, {}), rows
    encoder = {"_target_": "mil.features.encoders.Encoder"}
    yield (
        "encoder",
        "A file of `conf/encoder/` sets these; `auto` takes them from the feature files.",
        list(_of_class("encoder", encoder, {})),
    )
    yield (
        "tool",
        "What a file of `conf/tool/` states. `tool.endpoint` takes the arguments of [an endpoint](endpoints.md), "
        "`tool.decision` those of [a rule](../decisions.md).",
        list(_of_model(Tool, _described(Tool), "tool")),
    )
    cluster = comments(config.conf_dir() / "cluster" / "slurm.yaml", "cluster")
    yield (
        "cluster",
        "With `cluster=slurm` or `cluster=local`, of `mil train`, `mil predict` and `mil explain`: "
        "[run on SLURM](../how-to/slurm.md); `conf/cluster/slurm.yaml`.",
        list(_of_model(ClusterOptions, cluster, "cluster")),
    )
    federation = comments(config.conf_dir() / "federation" / "default.yaml", "federation")
    yield (
        "federation",
        "Of `mil federate`; `conf/federation/default.yaml`.",
        list(_of_model(FederationOptions, federation, "federation")),
    )


def introduction(path: Path, node: Mapping[str, object]) -> str:
    """Return what a file of `conf/` says above its first option, and the class that it names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    above = [line.lstrip("# ") for line in lines[: next((at for at, line in enumerate(lines) if line[:1] != "#"), 0)]]
    target = f" Class `{node['_target_']}`." if "_target_" in node else ""
    return " ".join(above) + target


Texts = dict[tuple[str, ...], tuple[str, str]]
"""Default and comment of each option of a file, by its path."""


def comments(path: Path, group: str = "") -> Texts:
    """Return what a yaml file says beside each of its options."""
    texts: Texts = {}
    parents: list[tuple[int, str]] = []
    key: tuple[str, ...] = ()
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            indent = len(match["indent"])
            parents = [each for each in parents if each[0] < indent]
            key = tuple(filter(None, (group, *(name for _, name in parents), match["key"])))
            texts[key] = (match["value"].strip(), match["comment"] or "")
            parents.append((indent, match["key"]))
        elif (more := _MORE.match(line)) and key and texts[key][1]:
            texts[key] = (texts[key][0], f"{texts[key][1]} {more[1]}")
    return texts


def _of_model(model: type[BaseModel], texts: Texts, prefix: str = "", only: tuple[str, ...] = ()) -> Iterator[Option]:
    """Yield the options of a pydantic model; those of groups within it by their dotted names."""
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        if only and name not in only:
            continue
        dotted = f"{prefix}.{field.alias or name}".lstrip(".")
        if isinstance(hints[name], type) and issubclass(hints[name], BaseModel) and hints[name] is not model:
            nested = hints[name]
            if all(issubclass(type(each.default), BaseModel) is False for each in nested.model_fields.values()):
                yield from _of_model(nested, texts | _described(nested, dotted), dotted)
                continue
        default, comment = texts.get(tuple(dotted.split(".")), texts.get((*prefix.split("."), name), ("", "")))
        yield Option(dotted, kind(hints[name]), default or plain(field.get_default(call_default_factory=True)), comment)


def _of_class(group: str, node: Mapping[str, object], texts: Texts) -> Iterator[Option]:
    """Yield the options of a component: those of its yaml and, of our own classes, every further argument."""
    target = get_class(str(node["_target_"]))
    checked = {"trainer": TrainerOptions, "split": SplitOptions, "optimizer": OptimizerOptions}.get(group)
    hints = get_type_hints(checked, include_extras=True) if checked is not None else {}
    arguments = inspect.signature(target).parameters
    ours = target.__module__.startswith("mil.")
    described = meanings(target)
    for name in dict.fromkeys([*(key for key in node if key != "_target_"), *(arguments if ours else ())]):
        if name in FILLED_IN:
            continue
        default, comment = texts.get((*group.split("."), name), ("", ""))
        argument = arguments.get(name)
        if argument is not None and argument.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        fallback = "" if argument is None or argument.default is inspect.Parameter.empty else plain(argument.default)
        annotation = hints.get(name, None if argument is None else argument.annotation)
        stated = default or (plain(node[name]) if name in node else fallback)
        yield Option(f"{group}.{name}", kind(annotation, stated), stated, comment or described.get(name, ""))


def _described(model: type[object], prefix: str = "tool") -> Texts:
    """Return the meanings of a class's attributes as if they were comments."""
    return {(*prefix.split("."), name): ("", text) for name, text in meanings(model).items()}


def meanings(kind: type[object]) -> dict[str, str]:
    """Return what the docstring of a class, and of its constructor, says about each argument or attribute."""
    bases = [each for each in inspect.getmro(kind) if each is not object and each.__doc__]
    text = "\n".join(inspect.getdoc(each) or "" for each in (*reversed(bases), kind.__init__))
    return {match[1]: " ".join(match[2].split()) for match in _MEANING.finditer(text)}


def kind(annotation: Any, default: str = "") -> str:
    """Return a type in words; an annotation that says nothing is judged by the default."""
    for known, words in NAMED:
        if annotation == known:
            return words
    if annotation in PLAIN and annotation is not Any:
        return PLAIN[annotation]
    if get_origin(annotation) is Annotated:
        return kind(get_args(annotation)[0], default)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{each}`" for each in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        members = [each for each in get_args(annotation) if each is not type(None)]
        words = " or ".join(dict.fromkeys(kind(each) for each in members))
        return f"{words}, or null" if type(None) in get_args(annotation) else words
    if get_origin(annotation) in (list, tuple):
        members = [each for each in get_args(annotation) if each is not Ellipsis]
        return f"list of {kind(members[0]) if members else 'any'}"
    if get_origin(annotation) in (dict, Mapping) or (
        get_origin(annotation) is not None and "Mapping" in str(annotation)
    ):
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    value = yaml.safe_load(default) if default else None
    return PLAIN.get(type(value), "text") if value is not None else "text, or null"


def plain(value: object) -> str:
    """Return a value as yaml writes it."""
    if isinstance(value, BaseModel):
        return "null"
    if isinstance(value, tuple):
        value = list(value)
    if value is None or isinstance(value, bool | int | float | str | list | dict):
        return str(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)).removesuffix("...\n").strip()
    return str(value)
