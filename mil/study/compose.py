"""From `conf/` and the words of a command line, or from a run's `config.yaml`, to a `RunConfig`.

Hydra composes once. Its own containers (`DictConfig`) do not leave this module and `mil.cli.train_command`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil import files
from mil.config import choices, conf_dir, described, groups, nearest, roots
from mil.errors import ConfigError
from mil.features.encoders import folded
from mil.features.feature_folders import feature_folders
from mil.study import trusted_classes
from mil.study.argument_kinds import refuse_other_kinds
from mil.study.component import TARGET
from mil.study.run_config import ModelOptions, RunConfig, ToolConfig
from mil.yaml_files import read_yaml

_PATHS = ("data.cohort", "data.slides", "data.features", "split.file", "hydra.run.dir", "hydra.sweep.dir")
_TEXTS = re.compile(
    r"data\.(name|table|covariates|columns\.\w+)|split\.column|encoder\.name|tool\.endpoint\.(column|time|event)"
)
"""Options that take a name from the user's tables, which Hydra's grammar would read as a number or a truth value."""
_FEATURES = "data.features"
_WORDS = ("tool.endpoint.classes",)
"""Options that take a list of words from the user's tables."""
_PLAIN_LIST = re.compile(r"\[([^\[\]{}'\"\\$]*)\]")
_UNDELETABLE = re.compile(r"Could not delete from config\. '([^']*)' does not exist")
_UNKNOWN_OVERRIDE = re.compile(r"Could not override '([^']*)'")
_NO_VALUE = re.compile(r"Error parsing override '([^']*)' missing EQUAL")
_ADDRESS = re.compile(r"\s*See https?://\S+( for \w+)?")


@dataclass(frozen=True)
class Composed:
    """A configuration, and the folder that a run with it goes to.

    Attributes:
        config: The configuration.
        folder: The run folder.
        named_by_time: Whether its name holds the time of the start, so that each start is a run of its own.
    """

    config: RunConfig
    folder: Path
    named_by_time: bool = False


def compose(words: Sequence[str] = (), extra: Path | None = None) -> RunConfig:
    """Return the configuration under the words of a command line, such as `["tool=msi-crc", "model.dropout=0.1"]`.

    Args:
        words: Options as `mil train` takes them; later ones win.
        extra: A folder of the user's own, laid out like `conf/`.

    Raises:
        ConfigError: A word that names no option, or a value that an option cannot have; one line.
    """
    return validated(_compose(_prepared_once(words, extra), extra), words)


def compose_run(words: Sequence[str] = (), extra: Path | None = None) -> Composed:
    """Return the configuration as `compose` does, and the run folder that `hydra.run.dir` names."""
    node = _compose(_prepared_once(words, extra), extra, with_hydra=True)
    try:
        folder = Path(str(node.hydra.run.dir)).absolute()
        named_by_time = "${now:" in str(cast(Any, OmegaConf.to_container(node.hydra.run, resolve=False))["dir"])
    except OmegaConfBaseException as error:
        raise in_one_line(error) from None
    del node["hydra"]
    return Composed(validated(node, words), folder, named_by_time)


def configure(choices: Mapping[str, str], values: Mapping[str, object]) -> RunConfig:
    """Return the configuration under keyword arguments of Python rather than the words of a command line.

    Args:
        choices: Files of `conf/` by group, such as `{"model": "abmil"}`.
        values: Options by dotted name, such as `{"model.dropout": 0.1}`; they win over the files.

    Raises:
        ConfigError: As `compose`.
    """
    words = [f"{group}={choice}" for group, choice in choices.items()]
    config = validated(_compose(prepare(words, None), None)).replaced(values)
    trusted_classes.trust(config.plain())
    refuse_other_kinds(config.plain())
    for key in values:
        _refuse_unknown_argument(key, config.plain())
    return config


def read_config(path: Path) -> RunConfig:
    """Read the `config.yaml` of a run folder, which may come from elsewhere: as data, see `mil.study.trusted_classes`.

    Raises:
        ConfigError: The file is missing, no yaml, or holds options that do not exist, classes that are not trusted, or
            an interpolation.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping, expected the options of a run")
    try:
        trusted_classes.refuse_foreign(values)
        return RunConfig.parse(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_config(path: Path, config: RunConfig) -> None:
    """Write a configuration as yaml, every value resolved."""
    files.write(path, to_yaml(config))


def to_yaml(config: RunConfig) -> str:
    """Return a configuration as yaml, every value resolved."""
    return OmegaConf.to_yaml(OmegaConf.create(config.plain()))


def validated(node: DictConfig, words: Sequence[str] = ()) -> RunConfig:
    """Return Hydra's configuration as a `RunConfig`.

    Args:
        node: As Hydra composed it.
        words: The command line's; options of constructors among them are checked by name.

    Raises:
        ConfigError: An option without a value, an option that does not exist, or a value out of range.
    """
    try:
        if missing := sorted(OmegaConf.missing_keys(node)):
            raise ConfigError(f"{missing[0]} has no value: give {missing[0]}=...")
        values = cast(dict[str, object], OmegaConf.to_container(node, resolve=True))
    except OmegaConfBaseException as error:
        raise in_one_line(error) from None
    trusted_classes.trust(values)
    config = RunConfig.parse(values)
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    options = [key for key in keys if "." in key and not key.startswith("hydra.")]
    if options:
        refuse_other_kinds(values)
    for key in options:
        _refuse_unknown_argument(key, values)
    return config


def _refuse_unknown_argument(key: str, values: Mapping[str, object]) -> None:
    """Check that a constructor on the way to an option takes it; others would say so only when they are called."""
    from mil.study.build import parameters  # loads torch, which a configuration that is only shown does not need

    names = key.split(".")
    node: Any = values
    for place, name in enumerate(names):
        if not isinstance(node, Mapping):
            return
        if names[:place] == ["model"] and name in ModelOptions.model_fields:
            return
        if TARGET in node and not name.startswith("_"):
            takes = parameters(str(node[TARGET]), ".".join(names[:place]))
            if name not in takes and not any(each.kind is each.VAR_KEYWORD for each in takes.values()):
                prefix = ".".join(names[:place])
                near = nearest(name, sorted({*map(str, node), *takes} - {"self", TARGET, name}), f"{prefix}.")
                raise ConfigError(f"option {'.'.join(names[: place + 1])!r} does not exist{near}")
        node = node.get(name)


def prepare(words: Sequence[str], extra: Path | None = None, sweeps: bool = True) -> list[str]:
    """Return words as Hydra takes them: paths quoted, and `++` before options.

    A yaml states what differs from the constructor's defaults; with `++` Hydra takes every option, and those that do
    not exist are refused afterwards (`validated`). Hydra's grammar would read commas, equal signs and quotes in a path.

    Args:
        words: Words of the command line.
        extra: A folder of the user's own, laid out like `conf/`.
        sweeps: Whether a comma may stand between values of a sweep.

    Raises:
        ConfigError: A word that cannot be read, or a choice that does not exist, such as `model=abmill`.
    """
    words = [_with_text_quoted(word, sweeps) for word in words]
    overrides = [_parsed(word) for word in words]
    known_groups, in_defaults = groups(extra), groups()
    prepared = []
    for word, override in zip(words, overrides, strict=True):
        key = override.key_or_group
        if key in known_groups:
            _refuse_unknown_choice(override, extra)
            word = word.lstrip("+") if key in in_defaults else word  # each has a file already, which this one replaces
        elif not (override.is_delete() or "/" in key or _is_left_to_hydra(key)):
            if "." not in key and key not in RunConfig.model_fields:
                raise ConfigError(
                    f"option {key!r} does not exist{nearest(key, [*RunConfig.model_fields, *known_groups])}"
                )
            word = f"++{word.lstrip('+')}"
        prepared.append(word)
    return prepared


def _prepared_once(words: Sequence[str], extra: Path | None) -> list[str]:
    """Return the words of one run as `prepare` does.

    Raises:
        ConfigError: As `prepare`, or an option with several values, which only a sweep takes.
    """
    prepared = prepare(words, extra, sweeps=False)
    for word, override in zip(words, map(_parsed, prepared), strict=True):
        if override.is_sweep_override():
            key, _, value = word.partition("=")
            if key.lstrip("+") in groups(extra):
                raise ConfigError(f"{word}: several choices, expected one; mil train -m sweeps over them")
            raise ConfigError(
                f"{word}: several values; a list is '{key}=[{value}]', a text with a comma \"{key}='{value}'\", and "
                "mil train -m sweeps over them"
            )
    return prepared


def _parsed(word: str) -> Override:
    """Parse one word of the command line.

    Raises:
        ConfigError: Not of Hydra's grammar; for the words of labels with the form that has no grammar.
    """
    if word.startswith(("-", "=")):
        raise ConfigError(f"option {word!r} does not exist, expected KEY=VALUE")
    if "=" not in word and not word.startswith("~"):
        raise ConfigError(f"{word}: has no value, expected {word}=VALUE")
    try:
        return OverridesParser.create().parse_overrides([word])[0]
    except HydraException:
        if word.lstrip("+").startswith("data.labels"):
            raise ConfigError(
                f"{word}: cannot be read on a command line; write it to a file labels.yaml with a line such as "
                '"ER Status": {"positive: strong": positive, "0%": negative} and give data.labels=labels.yaml'
            ) from None
        raise ConfigError(
            f"{word}: cannot be read; put single quotes round the word in the shell, such as 'key=[a, b]' or "
            "'key={a: b}', and quotes within them round text with colons, commas or brackets, such as "
            '\'key=["a: 1", "b, c"]\''
        ) from None


def _is_left_to_hydra(key: str) -> bool:
    """Return whether Hydra itself refuses a key that its configuration lacks: its own, and what a tool states."""
    first, *names = key.split(".")
    return first == "hydra" or (first == "tool" and bool(names) and names[0] not in ToolConfig.model_fields)


def _refuse_unknown_choice(override: Override, extra: Path | None) -> None:
    group = override.key_or_group
    chosen = override.sweep_string_iterator() if override.is_choice_sweep() else [override.value()]
    for name in chosen:
        if not isinstance(name, str) or "$" in name:  # several files of the group, or an interpolation: Hydra's own
            continue
        if not any((root / group / f"{name}.yaml").is_file() for root in roots(extra)):
            names = choices(group, extra)
            hint = _by_alias(name) if group == "encoder" else ""
            raise ConfigError(
                f"{group}={name} does not exist{hint or nearest(name, names)}; there is {', '.join(names)}"
            )


def _by_alias(name: str) -> str:
    """Return a hint where producers of features write an encoder's name so."""
    for choice, node in described("encoder").items():
        aliases = node.get("aliases")
        names = [choice, *(aliases if isinstance(aliases, list) else [])]
        if folded(name) in map(folded, map(str, names)):
            return f", did you mean {choice!r}?"
    return ""


def _compose(words: Sequence[str], extra: Path | None, with_hydra: bool = False) -> DictConfig:
    """Compose by Hydra; a Hydra application that calls this finds its own state afterwards."""
    search = [f"hydra.searchpath=[{quoted(f'file://{extra.absolute()}')}]"] if extra else []
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            node = hydra.compose("train", [*search, *words], return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise in_one_line(error) from None
    finally:
        GlobalHydra.instance().hydra = outer
    OmegaConf.set_struct(node, False)
    return node


def quoted(value: str) -> str:
    """Return a value in quotes of Hydra's grammar: paths with spaces, commas, equal signs and quotes.

    A backslash is doubled before a quote and at the end, and stands for itself elsewhere.
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _with_text_quoted(word: str, sweeps: bool) -> str:
    """Return a word whose path or name is quoted, so that `20240501` is no number, and `~` is the user's home folder.

    Raises:
        ConfigError: Nothing after the equal sign.
    """
    key, _, value = word.partition("=")
    option = key.lstrip("+")
    if option in _WORDS and (items := _PLAIN_LIST.fullmatch(value)) and items[1].strip():
        return f"{key}=[{','.join(quoted(item.strip()) for item in items[1].split(','))}]"
    if option == _FEATURES and (entries := _entries(value)):
        return f"{key}=[{','.join(map(quoted, entries))}]"
    is_path, is_text = option in _PATHS, bool(_TEXTS.fullmatch(option))
    if not (is_path or is_text) or "=" not in word:
        return word
    if not value:
        raise ConfigError(f"{word}: has no value; {option}=null stands for none")
    if value == "null" or "${" in value or value[0] in ("'", '"', "[", "{"):
        return word
    if is_text:
        has_several = "," in value and (sweeps or option == "data.covariates")
        return word if has_several else f"{key}={quoted(value)}"
    value = str(Path(value).expanduser()) if value.startswith("~") else value
    sweeps = "," in value and not key.startswith("hydra.") and not Path(value).exists()
    return word if sweeps else f"{key}={quoted(value)}"


def _entries(value: str) -> list[str]:
    """Return `NAME=DIR` of each of several encoders, written with brackets or without; empty for any other value."""
    bracketed = _PLAIN_LIST.fullmatch(value)
    folders = feature_folders(Path(bracketed[1].strip() if bracketed else value))
    return [f"{name}={folder}" for name, folder in folders.items()] if len(folders) > 1 else []


def in_one_line(error: Exception) -> ConfigError:
    """Return an error of Hydra or OmegaConf as one of ours, in one line and without addresses."""
    line = _ADDRESS.sub("", " ".join(str(error).split()))
    if match := _UNDELETABLE.search(line):
        return ConfigError(f"~{match[1]}: is not set, or there is no such option; leave the word out")
    if match := _NO_VALUE.search(line):
        return ConfigError(f"{match[1]}: has no value, expected {match[1]}=VALUE")
    if match := _UNKNOWN_OVERRIDE.search(line):
        key = match[1]
        if not key.startswith("tool."):
            return ConfigError(f"option {key!r} does not exist")
        near = nearest(key.removeprefix("tool."), list(ToolConfig.model_fields), "tool.")
        return ConfigError(f"option {key!r} does not exist{near}; +{key}=... adds a key of your own")
    return ConfigError(f"configuration: {line}")
