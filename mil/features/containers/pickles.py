"""Torch files of unknown origin, read without running code and without trusting what the file declares.

A torch file is a pickle, which is a program, and the bytes of the tensors. The program is checked first: it must be
short and may name only what tensors and numpy arrays need. Then torch's restricted unpickler runs it. The classes of
numpy never receive unchecked values; stand-ins hold them until they are checked.
"""

import io
import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.serialization import safe_globals

from mil.features.containers.arrays import Array, named, parsing, require_file
from mil.features.containers.matrices import RefusalError

_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch began a file before 1.6
_LEGACY_PICKLES = 5  # mark, version, system, content, keys of storages
_RECORDS = 1_000
_STEPS = 20_000  # a tensor takes forty
_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2")
_STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NUMBERS = {"f2", "f4", "f8", "i4", "i8"}


class _Kind:
    """Stands in for numpy's `dtype`."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Stored:
    """Stands in for numpy's `ndarray`."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state


def _reconstruct(kind: type[_Stored], shape: tuple[int, ...], code: bytes) -> _Stored:
    return kind()


def _no_bytes() -> bytes:
    return b""


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_reconstruct, "numpy.core.multiarray._reconstruct"),  # numpy 1
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_Stored, "numpy.ndarray"),
    (_Kind, "numpy.dtype"),
    (_no_bytes, "builtins.bytes"),
]
_KNOWN = {
    *(f"torch._utils {name}" for name in _TENSORS),
    *(f"torch {name}Storage" for name in _STORAGES),
    *("collections OrderedDict", "_codecs encode", "__builtin__ bytes"),
    *(f"numpy{core} _reconstruct" for core in (".core.multiarray", "._core.multiarray")),
    *("numpy ndarray", "numpy dtype"),
}


@contextmanager
def opened(path: Path, bulk: bool = False) -> Iterator[Any]:
    """Open a torch file: a tensor, an array, or a dictionary, list or tuple of these and of plain values.

    Args:
        path: The file.
        bulk: Read the values into memory; otherwise they are mapped where the file allows it.

    Raises:
        FeatureError: Whatever is wrong with the file, or with what a layout finds in it; or the environment asks torch
            to run what files say.
    """
    with named(path):
        _check_environment()
        with parsing("a torch file"):
            content = _content(path, bulk)
        yield content


def compare(path: Path) -> None:
    """Compare every record of a file with its checksum, in pieces; files from before torch 1.6 have none.

    Raises:
        FeatureError: A record differs, or the file cannot be read.
    """
    with named(path), parsing("a torch file"):
        require_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _compare(archive)


def _compare(archive: zipfile.ZipFile) -> None:
    if (damaged := archive.testzip()) is not None:
        raise RefusalError(f"record '{damaged}' differs from its checksum: the file has changed or is damaged")


def _check_environment() -> None:
    if os.environ.get(_SWITCH, "0") not in ("", "0"):
        raise RefusalError(f"it is not opened while {_SWITCH} is set, which lets files run code: unset it")


def _content(path: Path, bulk: bool) -> Any:
    size = require_file(path)
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    zipped = start.startswith(_ZIP)
    if not zipped and start != _LEGACY:
        raise RefusalError("it is no file of torch")
    stored = _checked_zip(path, size, bulk) if zipped else _checked_legacy(path, size)
    with safe_globals(_STAND_INS):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped and not bulk)
    return _checked(content, stored)


def _checked_zip(path: Path, size: int, values: bool) -> int:
    """Check the program of a torch file and return the number of bytes of its tensors.

    Args:
        path: The file.
        size: Its bytes.
        values: Also compare every record with its checksum, which torch itself does not.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        programs = [name for name in names if name.endswith("/data.pkl")]
        if len(records) > _RECORDS or len(set(names)) < len(names) or len(programs) != 1:
            raise RefusalError(
                f"it holds {len(records)} records and {len(programs)} called data.pkl, expected one such"
            )
        if any(name.endswith("/constants.pkl") for name in names):
            raise RefusalError("it is a program (TorchScript), expected features")
        # torch maps the records as they lie: packed ones would be taken for values
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise RefusalError("its records are compressed, expected them as torch writes them")
        if sum(record.file_size for record in records) > size:
            raise RefusalError(f"its records declare more than the {size} bytes that are stored")
        _check_program(io.BytesIO(archive.read(programs[0])), 1)
        if values:
            _compare(archive)
    return sum(record.file_size for record in records if "/data/" in record.filename)


def _checked_legacy(path: Path, size: int) -> int:
    with path.open("rb") as file:
        _check_program(file, _LEGACY_PICKLES)
    return size


def _check_program(file: BinaryIO, pickles: int) -> None:
    for _ in range(pickles):
        for step, (code, argument, _) in enumerate(pickletools.genops(file)):
            if step > _STEPS:
                raise RefusalError(f"its pickle has over {_STEPS} steps, more than features need")
            if code.name == "PROTO" and argument != 2:
                raise RefusalError(f"its pickle is of protocol {argument}, expected 2 as torch writes it")
            if code.name in ("GLOBAL", "STACK_GLOBAL", "INST") and argument not in _KNOWN:
                raise RefusalError(f"its pickle names '{_dotted(argument)}', expected tensors and arrays alone")


def _dotted(name: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(name).replace(" ", "."))[:80]


def _checked(entry: Any, stored: int, depth: int = 0) -> Any:
    if isinstance(entry, Tensor):
        return _checked_tensor(entry, stored)
    if isinstance(entry, _Stored):
        return _array(entry)
    if isinstance(entry, dict) and depth < 2:
        return {key: _checked(inner, stored, depth + 1) for key, inner in entry.items()}
    return entry


def _checked_tensor(tensor: Tensor, stored: int) -> Tensor:
    if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise RefusalError(f"it holds a {tensor.layout} {type(tensor).__name__}, expected a plain tensor")
    # a step of zero makes any length out of one value
    if tensor.nbytes > stored:
        raise RefusalError(f"it declares {tuple(tensor.shape)} of {tensor.dtype}, but {stored} bytes are stored")
    return tensor


def _array(array: _Stored) -> Array:
    code, shape = array.kind.code, array.shape
    if code not in _NUMBERS or array.kind.order not in ("<", ">", "="):
        objects = "Python objects" if str(code).startswith("O") else f"'{code}'"
        raise RefusalError(f"it holds an array of {objects}, expected numbers")
    dtype = np.dtype(code).newbyteorder(array.kind.order)
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise RefusalError("it holds an array without a shape")
    if not isinstance(array.content, bytes) or len(array.content) != math.prod(shape) * dtype.itemsize:
        raise RefusalError(f"it declares {shape} of {dtype}, but other bytes are stored")
    return np.frombuffer(array.content, dtype).reshape(shape, order="F" if array.fortran else "C")
