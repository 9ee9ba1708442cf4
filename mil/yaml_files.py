"""Read yaml files of unknown origin as data: bounded in size and depth, without aliases, interpolations or objects."""

from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil.errors import ConfigError
from mil.storage import check_kind, read_bytes

LARGEST = 1 << 20
"""Largest file in bytes; the configurations of the zoo have less than 10 KB."""
DEEPEST = 40
"""Deepest nesting of mappings and lists."""

_OPENS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def read_yaml(path: Path) -> object:
    """Return what a yaml file holds: mappings, lists, text and numbers; `${...}` stays text.

    Raises:
        ConfigError: The file cannot be read, is larger than `LARGEST` or deeper than `DEEPEST`, has an alias, which a
            few bytes can blow up to any size, or is no yaml.
    """
    try:
        check_kind(path, expected="a yaml file")
        raw = read_bytes(path, most=LARGEST + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or _line(error)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {_line(error)}") from None
    if len(raw) > LARGEST:
        raise ConfigError(f"{path}: more than {LARGEST >> 20} MiB, expected a yaml file of less")
    try:
        _refuse_bombs(path, text)
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text.strip() else {}
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{path}: no yaml: {_line(error)}") from None


def _refuse_bombs(path: Path, text: str) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise ConfigError(f"{path}, line {line}: alias *{token.value}, expected every value written out")
        depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
        if depth > DEEPEST:
            raise ConfigError(f"{path}: nested more than {DEEPEST} deep")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
