"""Tools by name, from here and elsewhere: whole, as their digests say, or not at all."""

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from mil import checkpoint, files
from mil.errors import CheckpointError, ConfigError
from mil.study import build
from mil.zoo import registry, signing, stores
from mil.zoo.registry import listed, local, pull, pulled, push, resolve
from tests.zoo.checkpoints import described, made, reseal

Bytes = dict[str, bytes]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "built_in", lambda: tmp_path / "built in")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return made(tmp_path / "toy")


@pytest.fixture(params=["folder", "file", "memory", "hub"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty registry of each kind; the hub is a folder in the place of three of its functions."""
    root = tmp_path / "registry"
    if request.param == "hub":
        monkeypatch.setattr(stores, "HfApi", lambda: Hub(root))
        monkeypatch.setattr(stores, "hf_hub_download", lambda repository, path: str(root / path))
        return "hf://owner/zoo"
    return {"folder": str(root), "file": f"file://{root}", "memory": f"memory://{uuid4().hex}"}[request.param]


class Hub:
    """Stands in for the Hugging Face Hub."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_repo_files(self, _repository: str) -> list[str]:
        """Of the repository."""
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def get_paths_info(self, _repository: str, paths: list[str]) -> list[Any]:
        """Sizes."""
        return [SimpleNamespace(size=(self.root / path).stat().st_size) for path in paths]

    def create_commit(self, _repository: str, operations: list[Any], commit_message: str) -> None:
        """All files of a commit."""
        assert commit_message
        for operation in operations:
            place = self.root / operation.path_in_repo
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(operation.path_or_fileobj, place)


def content(folder: Path) -> Bytes:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_listed_and_pulled_byte_for_byte(toy: Path, address: str, tmp_path: Path) -> None:
    assert listed(address) == []
    assert push(toy, address) == "toy/1.0.0"
    push(made(tmp_path / "newer", "1.10.0", seed=1), address)
    push(made(tmp_path / "new", "1.9.0", seed=2), address)
    assert listed(address) == [("toy", "1.0.0"), ("toy", "1.9.0"), ("toy", "1.10.0")]
    place = pull(address, "toy@1.0.0")
    assert place == pulled() / "toy" / "1.0.0"
    assert content(place) == content(toy)
    assert pull(address, "toy").name == "1.10.0"
    assert resolve("toy").name == "1.10.0"
    assert resolve("toy@1.0.0") == place
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_a_version_is_pushed_once_and_never_overwritten(toy: Path, address: str, tmp_path: Path) -> None:
    push(toy, address)
    push(toy, address)
    with pytest.raises(ConfigError, match="exists with other content, expected a new version"):
        push(made(tmp_path / "other", seed=1), address)
    assert content(pull(address, "toy")) == content(toy)


def test_a_folder_that_is_not_what_it_says_is_not_pushed(toy: Path, address: str) -> None:
    (toy / "README.md").write_text("better")
    with pytest.raises(CheckpointError, match=r"README\.md is not the file"):
        push(toy, address)
    assert listed(address) == []


@pytest.mark.parametrize("name", ["README.md", checkpoint.WEIGHTS])
def test_a_file_with_another_digest_is_refused_before_anything_reads_it(
    name: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "registry"
    push(toy, str(address))
    (address / "toy" / "1.0.0" / name).write_bytes(b"changed on the way")

    def never(*_: object) -> None:
        raise AssertionError("read before its digest was known")

    monkeypatch.setattr(checkpoint, "load", never)
    monkeypatch.setattr(checkpoint, "read_manifest", never)
    with pytest.raises(CheckpointError, match=rf"{name} is not the file that the manifest lists"):
        pull(str(address), "toy")
    assert [path for path in pulled().rglob("*") if path.is_file()] == []
    assert not list((build.cache_dir() / "blobs").glob(".*"))


def test_a_pull_that_broke_off_goes_on_where_it_ended(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "registry")
    push(toy, address)
    fetched: list[str] = []
    stream = stores.FileStore.stream

    def counted(self: stores.FileStore, path: str, limit: int) -> Iterator[bytes]:
        fetched.append(path.rpartition("/")[2])
        if fetched.count(checkpoint.WEIGHTS) == 1 and path.endswith(checkpoint.WEIGHTS):
            yield b"the first bytes"
            raise ConfigError("the line is cut")
        yield from stream(self, path, limit)

    monkeypatch.setattr(stores.FileStore, "stream", counted)
    with pytest.raises(ConfigError, match="cut"):
        pull(address, "toy")
    assert not (pulled() / "toy" / "1.0.0").exists()
    assert content(pull(address, "toy")) == content(toy)
    pull(address, "toy", tmp_path / "elsewhere")
    assert {name: fetched.count(name) for name in ("README.md", checkpoint.WEIGHTS)} == {
        "README.md": 1,
        checkpoint.WEIGHTS: 2,
    }


def test_a_spoilt_blob_is_fetched_again(toy: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "registry")
    push(toy, address)
    pull(address, "toy")
    blob = build.cache_dir() / "blobs" / files.sha256(toy / checkpoint.WEIGHTS)
    blob.write_bytes(b"spoilt")
    assert content(pull(address, "toy", tmp_path / "elsewhere")) == content(toy)


@pytest.mark.parametrize("name", ["../../evil.py", "/tmp/evil.py", "a/../../evil.py", "a\\..\\evil", "C:evil", "a//b"])
def test_a_manifest_whose_files_lead_out_is_refused(name: str, toy: Path, tmp_path: Path) -> None:
    place = tmp_path / "registry" / "toy" / "1.0.0"
    shutil.copytree(toy, place)
    manifest = described().model_copy(update={"files": {name: "0" * 64}})
    (place / checkpoint.MANIFEST).write_text(manifest.model_dump_json())
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        pull(str(tmp_path / "registry"), "toy")


def test_a_manifest_that_is_too_large_none_or_of_another_tool_is_refused(toy: Path, tmp_path: Path) -> None:
    address, place = str(tmp_path / "registry"), tmp_path / "registry" / "toy" / "1.0.0"
    shutil.copytree(toy, place)
    sound = (place / checkpoint.MANIFEST).read_bytes()
    for spoilt, message in (
        (sound + b" " * checkpoint.MANIFEST_LIMIT, "expected at most"),
        (b"{}", "manifest"),
        (b"no json", "manifest"),
        (sound.replace(b'"1.0.0"', b'"1.0.1"'), "is toy 1.0.1 by its manifest"),
        (sound.replace(b'"toy"', b'"joy"'), "is joy 1.0.0 by its manifest"),
    ):
        (place / checkpoint.MANIFEST).write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=message):
            pull(address, "toy")


def test_what_a_registry_does_not_hold_is_said_with_what_it_does(toy: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "registry")
    push(toy, address)
    for name, message in (("toys", "did you mean 'toy'"), ("toy@2.0.0", r"expected 1\.0\.0"), ("x", "holds no 'x'")):
        with pytest.raises(ConfigError, match=message):
            pull(address, name)
    with pytest.raises(ConfigError, match=r"registry nonsense://x"):
        listed("nonsense://x")


def test_something_else_where_a_tool_would_go_stays(toy: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "registry")
    push(toy, address)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists with other content"):
        pull(address, "toy", tmp_path / "mine")
    assert content(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_names_are_found_here_first_and_paths_stay_paths(toy: Path, tmp_path: Path) -> None:
    built_in = made(tmp_path / "built in" / "toy", "1.0.0")
    push(made(tmp_path / "next", "2.0.0"), str(tmp_path / "registry"))
    pull(str(tmp_path / "registry"), "toy")
    assert [(name, version) for name, version, _ in local()] == [("toy", "1.0.0"), ("toy", "2.0.0")]
    assert resolve("toy") == built_in
    assert resolve("toy@2.0.0") == pulled() / "toy" / "2.0.0"
    assert resolve(toy) == toy
    for name, message in (("toi", "did you mean 'toy'"), ("toy@9.0.0", r"expected 1\.0\.0, 2\.0\.0")):
        with pytest.raises(ConfigError, match=message):
            resolve(name)


class Signer(ModuleType):
    """Stands in for `model_signing`: a signature is the key and the folder's digests."""

    class Config:
        """Of signing and of verifying alike."""

        def use_elliptic_key_signer(self, private_key: Path) -> "Signer.Config":
            """With a key."""
            self.key = private_key.read_text()
            return self

        def use_elliptic_key_verifier(self, public_key: Path) -> "Signer.Config":
            """With a key."""
            self.key = public_key.read_text()
            return self

        def _content(self, folder: Path) -> str:
            return self.key + "".join(sorted(files.sha256(path) for path in folder.rglob("*") if path.is_file()))

        def sign(self, folder: Path, signature: Path) -> None:
            """Writes the signature."""
            signature.write_text(self._content(folder))

        def verify(self, folder: Path, signature: Path) -> None:
            """Refuses another."""
            if signature.read_text() != self._content(folder):
                raise ValueError("Signature mismatch: several\nlines")


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key of the stand-in."""
    for name in ("model_signing", "model_signing.signing", "model_signing.verifying"):
        monkeypatch.setitem(sys.modules, name, Signer(name))
    monkeypatch.setattr(signing, "check_key", lambda path, kind: None)  # reads keys with what the library brings
    path = tmp_path / "key.pem"
    path.write_text("mine")
    return path


def test_a_signature_goes_along_and_is_checked(
    toy: Path, address: str, key: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    signing.sign(toy, key)
    push(toy, address)
    place = pull(address, "toy", key=key)
    assert "signed, and the signature matches" in caplog.text
    assert signing.verify(place, key) == "signed"
    assert signing.verify(place, None) == "signed, not checked"
    assert pull(address, "toy", key=key) == place
    theirs = tmp_path / "theirs.pem"
    theirs.write_text("theirs")
    for again in (None, tmp_path / "fresh"):
        with pytest.raises(CheckpointError, match="the signature does not match"):
            pull(address, "toy", again, theirs)
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "fresh.sig").exists()
    (place / "README.md").write_text("another card")
    reseal(place)
    with pytest.raises(CheckpointError, match=r"the signature does not match \(Signature mismatch: several lines\)"):
        signing.verify(place, key)


def test_unsigned_is_said_and_refused_where_a_signature_is_asked_for(
    toy: Path, address: str, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(toy, address)
    with pytest.raises(CheckpointError, match="unsigned, expected a signature"):
        pull(address, "toy", key=key)
    assert not (pulled() / "toy" / "1.0.0").exists()
    pull(address, "toy")
    assert "toy@1.0.0: unsigned" in caplog.text


def test_without_the_library_signing_says_what_to_install(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model_signing", "model_signing.signing", "model_signing.verifying"):  # another test may have them
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "key.pem").write_text("x")
    signing.signature_path(toy).write_text("a signature")
    with pytest.raises(ConfigError, match=r"pip install 'mil-zoo\[sign\]'"):
        signing.sign(toy, tmp_path / "key.pem")
    with pytest.raises(ConfigError, match=r"pip install 'mil-zoo\[sign\]'"):
        signing.verify(toy, tmp_path / "key.pem")
