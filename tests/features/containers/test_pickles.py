"""torch files: malicious ones and randomly damaged ones."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import FeatureError
from mil.features.containers import arrays, pickles
from tests.features.mutation import mutated

VALUES = np.random.default_rng(0).standard_normal((6, 5))


class Touch:
    """Creates a file when Python's own pickle loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


class System:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (self.command,)


def touched(path: Path) -> Path:
    return path.with_name("touched")


def rewrite_archive(path: Path, change: Callable[[str, bytes], bytes], packed: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def save_with_program(path: Path, change: Callable[[bytes], bytes]) -> None:
    torch.save(torch.ones(6, 5), path)
    rewrite_archive(path, lambda name, content: change(content) if name.endswith("data.pkl") else content)


def malicious(path: Path) -> None:
    torch.save(Touch(touched(path)), path)


def malicious_in_a_dictionary(path: Path) -> None:
    torch.save({"features": torch.ones(3, 4), "extra": System(f"touch '{touched(path)}'")}, path)


def malicious_legacy(path: Path) -> None:
    torch.save(Touch(touched(path)), path, _use_new_zipfile_serialization=False)


def malicious_before_legacy(path: Path) -> None:
    """Put a payload into one of the four small pickles around the content."""
    torch.save(torch.ones(3, 4), path, _use_new_zipfile_serialization=False)
    mark, version = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    path.write_bytes(mark + version + pickle.dumps(Touch(touched(path)), 2) + path.read_bytes()[len(mark + version) :])


def malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch(touched(path))))


def malicious_array(path: Path) -> None:
    torch.save(np.array([Touch(touched(path))], dtype=object), path)


def objects(path: Path) -> None:
    torch.save(np.array([[1, "a"]], dtype=object), path)


def torchscript(path: Path) -> None:
    save_with_program(path, lambda content: content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/constants.pkl", b"\x80\x02).")


def tar(path: Path) -> None:
    """Write torch's oldest format, which torch unpacks to disk before it reads it."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def compressed(path: Path) -> None:
    torch.save(torch.ones(6, 5), path)
    rewrite_archive(path, lambda name, content: content, zipfile.ZIP_DEFLATED)


def two_programs(path: Path) -> None:
    torch.save(torch.ones(6, 5), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02).")


def stretched(path: Path) -> None:
    """Save a tensor of 4 TB that repeats one value with strides of zero."""
    torch.save(torch.ones(1, 1).expand(10**9, 1024), path)


def larger_than_its_storage(path: Path) -> None:
    save_with_program(path, lambda content: content.replace(b"K\x06K\x05\x86", b"M\xff\xffM\xff\xff\x86"))


def larger_storage(path: Path) -> None:
    """Claim a thousand values where thirty are stored."""
    save_with_program(
        path, lambda content: content.replace(b"K\x1et", b"M\xe8\x03t").replace(b"K\x06K\x05", b"K\xc8K\x05")
    )


def negative_storage(path: Path) -> None:
    save_with_program(path, lambda content: content.replace(b"K\x1et", b"J" + struct.pack("<i", -30) + b"t"))


def sparse(path: Path) -> None:
    torch.save(torch.eye(4).to_sparse(), path)


def without_end(path: Path) -> None:
    save_with_program(path, lambda content: content[:-1])


def long_program(path: Path) -> None:
    torch.save([[] for _ in range(20_000)], path)


def of_protocol_4(path: Path) -> None:
    torch.save(torch.ones(3, 4), path, pickle_protocol=4)


def array_of_another_length(path: Path) -> None:
    torch.save(VALUES.astype("f4"), path)
    rewrite_archive(path, lambda name, content: content.replace(b"K\x06K\x05\x86", b"K\x07K\x05\x86"))


def text(path: Path) -> None:
    path.write_text("no tensor\n")


def empty(path: Path) -> None:
    path.touch()


def pipe(path: Path) -> None:
    os.mkfifo(path)


ATTACKS = [
    (malicious, "expected tensors and arrays alone"),
    (malicious_in_a_dictionary, "posix.system"),
    (malicious_legacy, "expected tensors and arrays alone"),
    (malicious_before_legacy, "expected tensors and arrays alone"),
    (malicious_pickle, "no file of torch"),
    (malicious_array, "expected tensors and arrays alone"),
    (objects, "an array of Python objects"),
    (torchscript, "TorchScript"),
    (tar, "no file of torch"),
    (compressed, "compressed"),
    (two_programs, "2 called data.pkl"),
    (stretched, "are stored"),
    (larger_than_its_storage, "torch"),
    (larger_storage, "torch"),
    (negative_storage, "torch"),
    (sparse, "_rebuild_sparse_tensor"),
    (without_end, "torch"),
    (long_program, "steps"),
    (of_protocol_4, "protocol 4"),
    (array_of_another_length, "other bytes are stored"),
    (text, "no file of torch"),
    (empty, "no file of torch"),
    (pipe, "regular file"),
]


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_malicious_file_is_refused_in_one_line(
    tmp_path: Path, attack: Callable[[Path], None], reason: str, bulk: bool
) -> None:
    path = tmp_path / "a.pt"
    attack(path)
    with pytest.raises(FeatureError, match=reason) as raised, pickles.opened(path, bulk) as content:
        arrays.matrix(content)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).isprintable()
    assert not touched(path).exists()


def test_payloads_run_in_an_unsafe_loader(tmp_path: Path) -> None:
    for attack in (malicious, malicious_in_a_dictionary, malicious_legacy, malicious_array):
        attack(tmp_path / "a.pt")
        torch.load(tmp_path / "a.pt", weights_only=False)
        assert touched(tmp_path / "a.pt").exists(), attack
        touched(tmp_path / "a.pt").unlink()


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_loading_is_refused_if_weights_only_is_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    torch.save(torch.ones(3, 4), tmp_path / "a.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    with (
        pytest.raises(FeatureError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set"),
        pickles.opened(tmp_path / "a.pt"),
    ):
        pass


def test_allowed_globals_do_not_carry_over_to_the_next_file(tmp_path: Path) -> None:
    torch.save(VALUES, tmp_path / "a.pt")
    before = set(map(str, torch.serialization.get_safe_globals()))
    with pickles.opened(tmp_path / "a.pt"):
        # while it runs, torch allows further globals of its own, in any order
        assert {name for name in map(str, torch.serialization.get_safe_globals()) if "torch" not in name} <= before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=True)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_tensor_is_read_bit_for_bit(tmp_path: Path, dtype: torch.dtype, modern: bool, bulk: bool) -> None:
    expected = torch.from_numpy(VALUES * 100).to(dtype)
    torch.save(expected, tmp_path / "a.pt", _use_new_zipfile_serialization=modern)
    with pickles.opened(tmp_path / "a.pt", bulk) as content:
        assert content.dtype is dtype
        assert torch.equal(content, expected)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", "<i4", "<i8"])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("shape", [(6, 5), (0, 5), (0,), (30,)])
def test_array_of_any_numpy_version_is_read_bit_for_bit(
    tmp_path: Path, dtype: str, module: str, shape: tuple[int, ...]
) -> None:
    expected = (VALUES * 100).astype(dtype).ravel()[: int(np.prod(shape))].reshape(shape)
    torch.save(expected, tmp_path / "a.pt")
    rewrite_archive(
        tmp_path / "a.pt", lambda name, content: content.replace(b"numpy._core.multiarray", module.encode())
    )
    with pickles.opened(tmp_path / "a.pt") as content:
        assert content.dtype == expected.dtype
        np.testing.assert_array_equal(content, expected)


def test_column_major_array_is_read(tmp_path: Path) -> None:
    torch.save(np.asfortranarray(VALUES), tmp_path / "a.pt")
    with pickles.opened(tmp_path / "a.pt") as content:
        np.testing.assert_array_equal(content, VALUES)


def test_view_of_a_larger_tensor_is_read(tmp_path: Path) -> None:
    larger = torch.from_numpy(VALUES)
    torch.save(larger[2:4].T, tmp_path / "a.pt")
    with pickles.opened(tmp_path / "a.pt", bulk=True) as content:
        assert torch.equal(arrays.matrix(content), larger[2:4].T.float())


def test_plain_values_of_a_dictionary_are_read(tmp_path: Path) -> None:
    stored: dict[str, Any] = {
        "feats": torch.ones(2, 3),
        "array": VALUES,
        "label": 1,
        "name": "a",
        "inner": {"b": VALUES},
    }
    torch.save(stored, tmp_path / "a.pt")
    with pickles.opened(tmp_path / "a.pt") as content:
        assert list(content) == list(stored)
        np.testing.assert_array_equal(content["inner"]["b"], VALUES)
        assert (content["label"], content["name"]) == (1, "a")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles")


@pytest.fixture(scope="module")
def originals(folder: Path) -> list[bytes]:
    tensor = torch.from_numpy(VALUES).half()
    torch.save(tensor, folder / "1.pt")
    torch.save(tensor, folder / "2.pt", _use_new_zipfile_serialization=False)
    torch.save(VALUES.astype("f2"), folder / "3.pt")
    torch.save({"feats": tensor, "coords": torch.ones(6, 2).long()}, folder / "4.pt")
    return [path.read_bytes() for path in sorted(folder.glob("*.pt"))]


def refusal(folder: Path, content: bytes) -> str:
    path = folder / "broken.pt"
    path.write_bytes(content)
    try:
        for bulk in (False, True):
            with pickles.opened(path, bulk) as content:
                features = content.get("feats") if isinstance(content, dict) else content
                arrays.matrix(features if arrays.is_array(features) else torch.empty(0))
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


def test_a_value_that_changed_after_writing_differs_from_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "S.pt"
    torch.save(torch.full((6, 5), 1.5), path)
    with pickles.opened(path, bulk=True) as content:
        assert content.sum() == 45
    raw = path.read_bytes()
    path.write_bytes(raw.replace(np.float32(1.5).tobytes(), np.float32(-1.5).tobytes(), 1))
    assert len(path.read_bytes()) == len(raw)
    with pytest.raises(FeatureError, match="differs from its checksum"), pickles.opened(path, bulk=True):
        pass
