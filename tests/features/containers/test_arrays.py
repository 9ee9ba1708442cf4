"""numpy files: malicious and randomly damaged ones, and which arrays are accepted."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mil.errors import FeatureError
from mil.features.containers import arrays
from mil.features.containers.matrices import RefusalError, layout
from tests.features.mutation import mutated

VALUES = np.random.default_rng(0).standard_normal((6, 5))


def save_array(path: Path, values: NDArray[np.generic]) -> Path:
    np.save(path, values)
    return path


def write_with_header(path: Path, header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> Path:
    line = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY" + version + len(line).to_bytes(2, "little") + line + content)
    return path


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def objects(path: Path) -> None:
    np.save(path, np.array([Touch(path.with_name("touched"))], dtype=object), allow_pickle=True)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch(path.with_name("touched"))))


def structured(path: Path) -> None:
    np.save(path, np.zeros(3, dtype=[("x", "f4"), ("y", "f4")]))


def bomb(path: Path) -> None:
    write_with_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1024), }", b"1234")


def backwards(path: Path) -> None:
    write_with_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }", bytes(16))


def long_header(path: Path) -> None:
    write_with_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }" + " " * 20_000, bytes(16))


def nested_header(path: Path) -> None:
    write_with_header(path, "(" * 5_000, bytes(16))


def from_python_2(path: Path) -> None:
    write_with_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 4L), }", bytes(16))


def of_version_3(path: Path) -> None:
    write_with_header(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }", bytes(16), b"\x03\x00")


def cut(path: Path) -> None:
    path.write_bytes(save_array(path, VALUES).read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(save_array(path, VALUES).read_bytes() + b"x")


def text(path: Path) -> None:
    path.write_text("no array\n")


def empty(path: Path) -> None:
    path.touch()


def pipe(path: Path) -> None:
    os.mkfifo(path)


ATTACKS = [
    (objects, "Python objects"),
    (bare_pickle, "numpy"),
    (structured, "plain array"),
    (bomb, "4 bytes are stored"),
    (backwards, "plain array"),
    (long_header, "numpy"),
    (nested_header, "numpy"),
    (from_python_2, "Python 2"),
    (of_version_3, "version"),
    (cut, "stored"),
    (longer, "stored"),
    (text, "numpy"),
    (empty, "numpy"),
    (pipe, "regular file"),
]


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_malicious_file_is_refused_in_one_line(
    tmp_path: Path, attack: Callable[[Path], None], reason: str, bulk: bool
) -> None:
    path = tmp_path / "a.npy"
    attack(path)
    with pytest.raises(FeatureError, match=reason) as raised, arrays.opened(path, bulk):
        pass
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_matrix_is_read_bit_for_bit(tmp_path: Path, dtype: str, order: str, bulk: bool) -> None:
    values = np.asarray(VALUES, dtype, order=order)  # type: ignore[call-overload]  # numpy wants a literal
    with arrays.opened(save_array(tmp_path / "a.npy", values), bulk) as stored:
        assert layout(stored) == (6, 5, f"float{8 * values.itemsize}")
        matrix = arrays.matrix(stored)
    expected = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float32}[dtype[1:]]
    assert matrix.dtype is expected
    assert torch.equal(matrix, torch.from_numpy(values.astype(dtype[1:])).to(expected))


def test_matrix_remains_valid_after_its_file_is_deleted(tmp_path: Path) -> None:
    path = save_array(tmp_path / "a.npy", VALUES.astype("f4"))
    with arrays.opened(path) as stored:
        assert isinstance(stored, np.memmap)
        matrix = arrays.matrix(stored)
    path.write_bytes(b"")
    assert torch.equal(matrix, torch.from_numpy(VALUES.astype("f4")))


def test_two_byte_void_dtype_is_read_as_bfloat16(tmp_path: Path) -> None:
    expected = torch.from_numpy(VALUES).to(torch.bfloat16)
    with arrays.opened(
        save_array(tmp_path / "a.npy", expected.view(torch.int16).numpy().view("V2")), bulk=True
    ) as stored:
        assert torch.equal(arrays.matrix(stored), expected)


@pytest.mark.parametrize(
    "value", [np.ones((3, 4), "i4"), np.ones((3, 4), "?"), np.ones((3, 4), "c8"), torch.ones(3, 4).int()]
)
def test_features_that_are_not_floats_are_refused(value: arrays.Values) -> None:
    with pytest.raises(RefusalError, match="expected float16, float32 or bfloat16"):
        layout(value)


@pytest.mark.parametrize("shape", [(), (4,), (3, 0), (2, 3, 4), (1, 1, 3, 4)])
def test_features_that_are_not_a_matrix_are_refused(shape: tuple[int, ...]) -> None:
    for batch_axis in (False, True):
        with pytest.raises(RefusalError, match="shape"):
            layout(np.ones(shape, "f4"), batch_axis)


def test_batch_axis_is_refused_unless_declared() -> None:
    values = np.ones((1, 3, 4), "f4")
    with pytest.raises(RefusalError, match=r"data\.batch_axis=true"):
        layout(values)
    assert layout(values, batch_axis=True) == (3, 4, "float32")
    assert arrays.matrix(values, batch_axis=True).shape == (3, 4)
    assert arrays.points(np.ones((1, 3, 2)), 3, batch_axis=True).shape == (3, 2)


@pytest.mark.parametrize(("shape", "expected"), [((0,), (0, 0)), ((0, 7), (0, 7))])
def test_empty_matrix_has_no_rows(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert layout(np.empty(shape, "f4")) == (*expected, "float32")
    assert arrays.matrix(torch.empty(shape)).shape == expected


@pytest.mark.parametrize("kind", ["i4", "i8", "u2", "f4", "f8", ">i4", ">f8"])
def test_coordinates_of_any_dtype_become_integer_pixels(kind: str) -> None:
    expected = torch.tensor([[0, 512], [70_000, 3]])
    values = np.array([[0, 512], [7 if kind == "u2" else 70_000, 3]], kind)
    if kind == "u2":
        expected[1, 0] = 7
    assert torch.equal(arrays.points(values, 2), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_coordinates_that_are_not_pixels_are_refused(value: float) -> None:
    with pytest.raises(RefusalError, match="no pixels"):
        arrays.points(np.array([[0.0, value]]), 1)


def test_coordinates_of_another_length_are_refused() -> None:
    with pytest.raises(RefusalError, match=r"\(3, 2\), expected \(4, 2\)"):
        arrays.points(np.ones((3, 2)), 4)
    with pytest.raises(RefusalError, match="expected numbers"):
        arrays.points(np.full((1, 2), "x"), 1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["arr_0", "locations"])
def test_archive_with_one_array_is_read(tmp_path: Path, save: Callable[..., None], name: str) -> None:
    save(tmp_path / "a.npz", **{name: VALUES})
    with arrays.opened(tmp_path / "a.npz") as stored:
        np.testing.assert_array_equal(stored, VALUES)


def test_malicious_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, other=VALUES)
    with pytest.raises(FeatureError, match="0 arrays"), arrays.opened(path):
        pass
    start = io.BytesIO()
    np.save(start, np.zeros(1, "u1"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", start.getvalue() + bytes(10**7))
    with pytest.raises(FeatureError, match="bytes are stored") as raised, arrays.opened(path):
        pass
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("arr_0.npy", start.getvalue() + bytes(10**7))
    with pytest.raises(FeatureError, match="more than can be stored"), arrays.opened(path):
        pass
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays")


@pytest.fixture(scope="module")
def originals(folder: Path) -> list[bytes]:
    small = VALUES.astype("f2")
    np.savez(folder / "stored.npz", small)
    np.savez_compressed(folder / "packed.npz", small)
    return [save_array(folder / "a.npy", small).read_bytes(), *(path.read_bytes() for path in folder.glob("*.npz"))]


def refusal(folder: Path, content: bytes) -> str:
    path = folder / ("broken.npz" if content.startswith(b"P") else "broken.npy")
    path.write_bytes(content)
    try:
        for bulk in (False, True):
            with arrays.opened(path, bulk) as stored:
                arrays.matrix(stored)
    except FeatureError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_file_is_read_or_refused_in_one_line(folder: Path, originals: list[bytes], data: st.DataObject) -> None:
    assert "\n" not in refusal(folder, data.draw(mutated(originals)))


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_files_are_read_or_refused(
    folder: Path, originals: list[bytes], data: st.DataObject
) -> None:
    assert "\n" not in refusal(folder, data.draw(mutated(originals)))
