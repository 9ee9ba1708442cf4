"""Optional signatures of released folders, by `model-signing` (extra `sign`).

The signature is the file `<folder>.sig` next to the folder, since the folder itself may hold only files that its
manifest lists. It is made with a private elliptic-curve key and checked with the public key, without any service.
"""

import importlib
import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Literal
from uuid import uuid4

from mil.errors import CheckpointError, ConfigError
from mil.storage import check_kind, read_bytes, special_kind

SUFFIX = ".sig"
SIGNATURE_LIMIT, _KEY_LIMIT = 2**20, 2**16
"""Bytes of the largest signature, which lists the files of a folder, and of the largest key."""
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EXPECTED = f"expected an elliptic-curve key ({', '.join(_CURVES.values())}) in PEM format"


def signature_path(folder: Path) -> Path:
    """Return the path of a folder's signature."""
    place = folder.absolute()  # `.` has no name
    return place.with_name(f"{place.name}{SUFFIX}")


def sign(folder: Path, private_key: Path) -> Path:
    """Sign every file of a folder and return the path of the signature.

    Raises:
        ConfigError: if `model-signing` is not installed, the key or the folder cannot be used, or something that is no
            signature lies where it would be written.
    """
    signing = _library_module("signing")
    check_key(private_key, "private")
    path = signature_path(folder)
    if path.is_symlink() or (os.path.lexists(path) and not path.is_file()):
        kind = "a link" if path.is_symlink() else special_kind(path)
        raise ConfigError(f"{path}: is {kind}, expected a new file for the signature, or an earlier signature")
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        signing.Config().use_elliptic_key_signer(private_key=private_key).sign(folder, draft)
        draft.replace(path)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{folder}: cannot be signed: {' '.join(str(error).split())}") from None
    finally:
        draft.unlink(missing_ok=True)
    return path


def verify(folder: Path, public_key: Path | None, signature: Path | None = None) -> str:
    """Check a folder's signature and return its state: `unsigned`, `signed, not checked`, or `signed`.

    Args:
        folder: A released folder.
        public_key: Key of the expected signer; if given, an unsigned folder is an error.
        signature: Path of the signature; by default next to the folder.

    Raises:
        CheckpointError: if the signature does not match the folder or the key, is no file, or a key is given and there
            is no signature.
        ConfigError: if `model-signing` is not installed, or the key cannot be used.
    """
    path = signature or signature_path(folder)
    if public_key is not None:
        check_key(public_key, "public")
    if os.path.lexists(path):
        _check_signature(path)
    else:
        if public_key is not None:
            raise CheckpointError(f"{folder}: unsigned, expected a signature that {public_key} verifies")
        return "unsigned"
    if public_key is None:
        return "signed, not checked"
    verifying = _library_module("verifying")
    try:
        with redirect_stdout(io.StringIO()):  # the library prints there what it thinks of the file
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


def _check_signature(path: Path) -> None:
    """Refuse what lies in the place of a signature and is none: it would count as unsigned, or fill the memory."""
    check_kind(path, CheckpointError, "a signature")
    if not path.is_file():
        raise CheckpointError(f"{path}: a link to nothing, expected a signature")
    if path.stat().st_size > SIGNATURE_LIMIT:
        raise CheckpointError(
            f"{path}: has {path.stat().st_size} bytes, expected a signature of at most {SIGNATURE_LIMIT}"
        )


def check_key(path: Path, kind: Literal["private", "public"]) -> None:
    """Check that a file holds a key that can be used, of the right half of a pair.

    Raises:
        ConfigError: It does not, or is no file.
    """
    content = _key_content(path, kind)
    _library_module("signing")  # brings what reads keys
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    half = "public" if kind == "private" else "private"
    begins = b"PRIVATE KEY-----" in content, b"PUBLIC KEY-----" in content
    if begins == ((kind == "public"), (kind == "private")):
        raise ConfigError(f"{path}: is a {half} key, expected the {kind} key of the pair")
    key: object
    try:
        if kind == "private":
            key = serialization.load_pem_private_key(content, None)
        else:
            key = serialization.load_pem_public_key(content)
    except TypeError:
        raise ConfigError(f"{path}: is a key behind a password, expected one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: holds no {kind} key that can be read, {_EXPECTED}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        name = type(key).__name__.removesuffix("Key").removesuffix("Private").removesuffix("Public")
        raise ConfigError(f"{path}: is a key of another kind ({name}), {_EXPECTED}")
    if key.curve.name not in _CURVES:
        raise ConfigError(f"{path}: is a key on the curve {key.curve.name}, {_EXPECTED}")


def _key_content(path: Path, kind: str) -> bytes:
    try:
        content = read_bytes(path, most=_KEY_LIMIT + 1)
    except OSError as error:
        missing = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"{path}: {missing}, expected a {kind} key in PEM format") from None
    if len(content) > _KEY_LIMIT:
        raise ConfigError(f"{path}: has more than {_KEY_LIMIT} bytes, expected a {kind} key in PEM format")
    return content
