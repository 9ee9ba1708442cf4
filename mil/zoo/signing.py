"""Optional signatures of released folders, by `model-signing` (extra `sign`).

A signature lies beside the folder as `<folder>.sig`: the folder itself holds what its manifest counts and nothing more.
It is made with a private elliptic-curve key and checked with the public one, without any service.
"""

import importlib
from pathlib import Path
from typing import Any

from mil.errors import CheckpointError, ConfigError

SUFFIX = ".sig"


def beside(folder: Path) -> Path:
    """Where a folder's signature lies."""
    return folder.with_name(f"{folder.name}{SUFFIX}")


def sign(folder: Path, private_key: Path) -> Path:
    """Signs every file of a folder; gives the signature's path.

    Raises:
        ConfigError: `model-signing` is not installed, or the key cannot be used.
    """
    signing = _part("signing")
    _refuse_no_file(private_key)
    try:
        signing.Config().use_elliptic_key_signer(private_key=private_key).sign(folder, beside(folder))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{private_key}: {' '.join(str(error).split())}, expected a private key") from None
    return beside(folder)


def verify(folder: Path, public_key: Path | None, signature: Path | None = None) -> str:
    """Says what is known of a folder's signature: `unsigned`, `signed, not checked`, or `signed`.

    Args:
        folder: Released.
        public_key: Of whom the signature has to be; with it, an unsigned folder is refused.
        signature: Where it lies; beside the folder where left out.

    Raises:
        CheckpointError: the folder is not what was signed, by another key, or not at all where a key is given.
        ConfigError: `model-signing` is not installed.
    """
    path = signature or beside(folder)
    if not path.is_file():
        if public_key is not None:
            raise CheckpointError(f"{folder}: unsigned, expected a signature that {public_key} vouches for")
        return "unsigned"
    if public_key is None:
        return "signed, not checked"
    verifying = _part("verifying")
    _refuse_no_file(public_key)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(folder, path)
    except (ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: the signature does not fit ({said})") from None
    return "signed"


def _part(name: str) -> Any:
    """A module of a library that is not always there."""
    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError:
        raise ConfigError("signatures need model-signing: pip install 'mil-zoo[sign]'") from None


def _refuse_no_file(key: Path) -> None:
    if not key.is_file():
        raise ConfigError(f"{key} is no file, expected a key in PEM")
