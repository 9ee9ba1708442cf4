"""Features of several encoders: how their folders are named together, `uni2=DIR1,conch_v15=DIR2`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mil.errors import ConfigError

_ENTRY = re.compile(r"([A-Za-z0-9][\w.\- ]*)=(.+)", re.DOTALL)
_NEXT = re.compile(r",\s*(?=[A-Za-z0-9][\w.\- ]*=)")
"""A comma that begins the next entry; commas within the name of a folder do not."""


def joined_text(entries: Sequence[str]) -> str:
    """Return the entries `NAME=DIR` of several encoders as one text, which `feature_folders` takes apart.

    Raises:
        ConfigError: Fewer than two entries, or one without the name of its encoder.
    """
    for entry in entries:
        if len(entries) < 2 or not _ENTRY.fullmatch(entry):
            raise ConfigError(
                f"data.features=[{','.join(entries)}], expected one folder, or several with the name of the encoder "
                "before each, such as data.features=[uni2=features/uni2,conch_v15=features/conch_v15]"
            )
    return ",".join(entries)


def feature_folders(features: Path) -> dict[str, Path]:
    """Return the folder of each encoder by its name; empty where `features` is a single folder or packed file.

    Args:
        features: A path, or `NAME=DIR,NAME=DIR` for several encoders. A path that exists is always taken as it is.

    Raises:
        ConfigError: An encoder is named twice.
    """
    text = str(features)
    if "=" not in text or features.exists():
        return {}
    folders: dict[str, Path] = {}
    for entry in _NEXT.split(text):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            return {}
        if match[1] in folders:
            raise ConfigError(f"features {text}: encoder '{match[1]}' is named twice, expected a folder for each")
        folders[match[1]] = Path(match[2]).expanduser()
    return folders


def features_text(features: str | Path | Mapping[str, str | Path]) -> str:
    """Return features as one text: a path, or the folder of each encoder by its name.

    Raises:
        ConfigError: A mapping with a single folder.
    """
    if isinstance(features, Mapping):
        return joined_text([f"{name}={folder}" for name, folder in features.items()])
    return str(features)


def placed_features(features: object, folder: Path) -> str:
    """Return where features are, as one text; relative folders begin at another.

    Args:
        features: A path, `NAME=DIR,NAME=DIR`, or a list of `NAME=DIR`.
        folder: Where relative folders begin.

    Raises:
        ConfigError: A list that does not name the encoders.
    """
    text = joined_text([str(entry) for entry in features]) if isinstance(features, list) else str(features)
    folders = feature_folders(Path(text))
    if not folders:
        return str((folder / Path(text).expanduser()).resolve())
    return joined_text([f"{name}={(folder / place).resolve()}" for name, place in folders.items()])


def paths_of(features: Path | None) -> list[Path]:
    """Return the folders or packed files that are read, one for each encoder; none where none are given."""
    if features is None:
        return []
    return list(feature_folders(features).values()) or [features]
