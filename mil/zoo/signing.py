"""Optional signatures of released folders, by `model-signing` (extra `sign`).

The signature is the file `<folder>.sig` next to the folder, since the folder itself may hold only files that its
manifest lists. It is made with a private elliptic-curve key and checked with the public key, without any service.
"""

import importlib
from pathlib import Path
from types import ModuleType

from mil.errors import CheckpointError, ConfigError

SUFFIX = ".sig"


def signature_path(folder: Path) -> Path:
    """Return the path of a folder's signature."""
    place = folder.absolute()  # `.` has no name
    return place.with_name(f"{place.name}{SUFFIX}")


def sign(folder: Path, private_key: Path) -> Path:
    """Sign every file of a folder and return the path of the signature.

    Raises:
        ConfigError: if `model-signing` is not installed or the key cannot be used.
    """
    signing = _library_module("signing")
    _check_key_exists(private_key)
    path = signature_path(folder)
    try:
        signing.Config().use_elliptic_key_signer(private_key=private_key).sign(folder, path)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{private_key}: {' '.join(str(error).split())}, expected a private key") from None
    return path


def verify(folder: Path, public_key: Path | None, signature: Path | None = None) -> str:
    """Check a folder's signature and return its state: `unsigned`, `signed, not checked`, or `signed`.

    Args:
        folder: A released folder.
        public_key: Key of the expected signer; if given, an unsigned folder is an error.
        signature: Path of the signature; by default next to the folder.

    Raises:
        CheckpointError: if the signature does not match the folder or the key, or a key is given and there is no
            signature.
        ConfigError: if `model-signing` is not installed.
    """
    path = signature or signature_path(folder)
    if not path.is_file():
        if public_key is not None:
            raise CheckpointError(f"{folder}: unsigned, expected a signature that {public_key} verifies")
        return "unsigned"
    if public_key is None:
        return "signed, not checked"
    verifying = _library_module("verifying")
    _check_key_exists(public_key)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(folder, path)
    except Exception as error:  # whatever the library raises on a file from elsewhere, it is no signature
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: the signature does not match ({message})") from None
    return "signed"


def _library_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError:
        raise ConfigError("signatures need model-signing: pip install 'mil-zoo[sign]'") from None


def _check_key_exists(key: Path) -> None:
    if not key.is_file():
        raise ConfigError(f"{key}: no such file, expected a key in PEM format")
