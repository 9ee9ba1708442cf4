"""Where a registry keeps its files: a folder, any address that fsspec supports, or the Hugging Face Hub."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fsspec
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from mil.errors import CheckpointError, ConfigError

HUB = "hf://"
_CHUNK_BYTES = 2**20


class Store(ABC):
    """Files by path, with `/` as the separator."""

    address: str

    @abstractmethod
    def names(self) -> list[str]:
        """Return the path of every file."""

    @abstractmethod
    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the content of a file in chunks.

        Raises:
            CheckpointError: as soon as the file turns out to have more than `limit` bytes.
        """

    @abstractmethod
    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """Upload files of a folder in the given order to `root/<name>`, or to `root/<target>` if `targets` is given."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes."""
        return b"".join(self.stream(path, limit))


def store(address: str) -> Store:
    """Return the store at an address: a path, `hf://owner/repo`, or what fsspec supports (`s3://...`, `memory://...`).

    Raises:
        ConfigError: if fsspec does not support the address or its library is not installed.
    """
    return HubStore(address.removeprefix(HUB)) if address.startswith(HUB) else FileStore(address)


class FileStore(Store):
    """An address of fsspec; a plain path is a local folder."""

    def __init__(self, address: str) -> None:
        try:
            self.files, self.root = fsspec.core.url_to_fs(address)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"registry {address}: {' '.join(str(error).split())}") from None
        self.address = address

    def names(self) -> list[str]:
        """Return the path of every file below the address."""
        with _errors_of(self.address):
            self.files.invalidate_cache()
            paths = self.files.find(self.root) if self.files.exists(self.root) else []
        return [str(path).removeprefix(self.root).lstrip("/") for path in paths]

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the content of a file in chunks."""
        size = 0
        with _errors_of(self.address), self.files.open(f"{self.root}/{path}", "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                size += len(chunk)
                _check_size(path, size, limit)
                yield chunk

    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """Upload the files one after the other."""
        with _errors_of(self.address):
            for name, target in zip(names, targets or names, strict=True):
                path = f"{self.root}/{root}/{target}"
                self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(folder / name), path)


class HubStore(Store):
    """A model repository on the Hugging Face Hub."""

    def __init__(self, repository: str) -> None:
        self.repository, self.address = repository, f"{HUB}{repository}"

    def names(self) -> list[str]:
        """Return the path of every file in the repository."""
        with _errors_of(self.address):
            return HfApi().list_repo_files(self.repository)

    def stream(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the content of a file in chunks, from the hub's own cache."""
        with _errors_of(self.address):
            infos = HfApi().get_paths_info(self.repository, [path])
            _check_size(path, max((getattr(info, "size", 0) for info in infos), default=0), limit)
            local_path = Path(hf_hub_download(self.repository, path))
        with local_path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def put(self, folder: Path, root: str, names: Sequence[str], targets: Sequence[str] | None = None) -> None:
        """Upload the files in one commit, so that a reader sees all of them or none."""
        operations = [
            CommitOperationAdd(path_in_repo=f"{root}/{target}", path_or_fileobj=str(folder / name))
            for name, target in zip(names, targets or names, strict=True)
        ]
        with _errors_of(self.address):
            HfApi().create_commit(self.repository, operations, commit_message=f"{root}: {len(operations)} files")


def _check_size(path: str, size: int, limit: int) -> None:
    if size > limit:
        raise CheckpointError(f"{path} has {size} bytes or more, expected at most {limit}")


@contextmanager
def _errors_of(address: str) -> Iterator[None]:
    """Turn errors of the network and of the file system into one line that names the registry."""
    try:
        yield
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(f"registry {address}: {' '.join(str(error).split())[:300]}") from None
