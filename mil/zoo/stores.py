"""Where a registry keeps its files: a folder, whatever fsspec reaches, or the Hugging Face Hub."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import fsspec
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from mil.errors import CheckpointError, ConfigError

HUB = "hf://"
_PIECE = 2**20


class Store(Protocol):
    """Files by path, `/` between the parts."""

    def names(self) -> list[str]:
        """Every file's path."""

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """A file's content in pieces; one above `limit` bytes is refused as soon as that shows."""

    def read(self, path: str, limit: int) -> bytes:
        """The same at once."""

    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """Writes files of a folder to `root/<name>`, the last one last; under other names where `targets` has them."""


def store(address: str) -> Store:
    """The store at an address: a path, `hf://owner/repo`, or what fsspec knows (`s3://...`, `memory://...`).

    Raises:
        ConfigError: nothing that fsspec knows, or whose library is not installed.
    """
    return Hub(address.removeprefix(HUB)) if address.startswith(HUB) else Anywhere(address)


class _Whole:
    """What can be streamed can be read."""

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        raise NotImplementedError

    def read(self, path: str, limit: int) -> bytes:
        """A whole file."""
        whole = io.BytesIO()
        for piece in self.stream(path, limit):
            whole.write(piece)
        return whole.getvalue()


class Anywhere(_Whole):
    """An address of fsspec's; a plain path is a local folder."""

    def __init__(self, address: str) -> None:
        try:
            self.files, self.root = fsspec.core.url_to_fs(address)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"registry {address}: {' '.join(str(error).split())}") from None
        self.address = address

    def names(self) -> list[str]:
        """Every file's path below the address."""
        with _told(self.address):
            self.files.invalidate_cache()
            found = self.files.find(self.root) if self.files.exists(self.root) else []
        return [str(path).removeprefix(self.root).lstrip("/") for path in found]

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """In pieces."""
        amount = 0
        with _told(self.address), self.files.open(f"{self.root}/{path}", "rb") as file:
            while piece := file.read(_PIECE):
                amount += len(piece)
                _refuse_large(path, amount, limit)
                yield piece

    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """One after the other."""
        with _told(self.address):
            for name, target in zip(names, targets or names, strict=True):
                place = f"{self.root}/{root}/{target}"
                self.files.makedirs(place.rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(folder / name), place)


class Hub(_Whole):
    """A model repository on the Hugging Face Hub."""

    def __init__(self, repository: str) -> None:
        self.repository, self.address = repository, f"{HUB}{repository}"

    def names(self) -> list[str]:
        """Every file's path in the repository."""
        with _told(self.address):
            return HfApi().list_repo_files(self.repository)

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """In pieces, from what the hub's own cache fetched."""
        with _told(self.address):
            info = HfApi().get_paths_info(self.repository, [path])
            _refuse_large(path, max((getattr(one, "size", 0) for one in info), default=0), limit)
            place = Path(hf_hub_download(self.repository, path))
        with place.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """In one commit: a reader sees all of it or nothing."""
        added = [
            CommitOperationAdd(path_in_repo=f"{root}/{target}", path_or_fileobj=str(folder / name))
            for name, target in zip(names, targets or names, strict=True)
        ]
        with _told(self.address):
            HfApi().create_commit(self.repository, added, commit_message=f"{root}: {len(added)} files")


def _refuse_large(path: str, amount: int, limit: int) -> None:
    if amount > limit:
        raise CheckpointError(f"{path} has {amount} bytes or more, expected at most {limit}")


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What goes wrong on the way, as one line."""
    try:
        yield
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(f"registry {address}: {' '.join(str(error).split())[:300]}") from None
