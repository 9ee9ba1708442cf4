"""Released tools, found by name: those that come with the package, those pulled, and registries elsewhere.

A registry holds `<tool>/<version>/<files>`, and beside a version that is signed `<tool>/<version>.sig`. It is a local
folder, any address that fsspec knows, or `hf://owner/repo` on the Hugging Face Hub. Nothing that it sends is trusted:
the manifest is read as data, every other file must have the digest that the manifest gives before anything reads it.
Files are kept by their digest, so that a pull that was broken off goes on where it ended and no file comes twice.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePosixPath
from uuid import uuid4

from pydantic import ValidationError

import mil
from mil import checkpoint, files
from mil.config import nearest
from mil.errors import CheckpointError, ConfigError
from mil.manifest import Manifest, parsed
from mil.study import build
from mil.zoo import signing
from mil.zoo.stores import Store, store
from mil.zoo.versions import parse

FILE_LIMIT, SIGNATURE_LIMIT, FILES_LIMIT = 2**33, 2**20, 1000
logger = logging.getLogger(__name__)


def built_in() -> Path:
    """The folder of tools that come with the package: within it in a wheel, beside it in a checkout."""
    package = Path(mil.__file__).parent
    inside, beside = package / "model_cards", package.parent / "model_cards"
    return inside if inside.is_dir() else beside


def pulled() -> Path:
    """Where pulled tools lie, as `<tool>/<version>`."""
    return build.cache_dir() / "zoo"


def local() -> Iterator[tuple[str, str, Path]]:
    """Name, version and folder of every tool at hand: the package's own, then pulled ones from new to old.

    Raises:
        CheckpointError: a folder there has a manifest that is none.
    """
    for path in sorted(built_in().glob(f"*/{checkpoint.MANIFEST}")):
        yield path.parent.name, str(_manifest(path.read_bytes(), str(path)).tool["version"]), path.parent
    for path in sorted(pulled().glob(f"*/*/{checkpoint.MANIFEST}"), key=_newest_first):
        yield path.parents[1].name, path.parent.name, path.parent


def resolve(name: str | Path) -> Path:
    """The folder of a checkpoint: a path, or `msi-crc` or `msi-crc@1.0.0` where a tool at hand has that name.

    Raises:
        ConfigError: neither a folder nor a tool at hand.
    """
    path = Path(name).expanduser()
    if (path / checkpoint.MANIFEST).exists() or os.sep in str(name):
        return path
    tool, _, version = str(name).partition("@")
    there = list(local())
    for own, release, folder in there:
        if own == tool and version in ("", release):
            return folder
    if path.is_dir():
        return path
    known = list(dict.fromkeys(own for own, _, _ in there))
    if tool in known:
        said = ", ".join(release for own, release, _ in there if own == tool)
        raise ConfigError(f"{tool}: version {version} is not here, expected {said} (mil zoo pull fetches others)")
    raise ConfigError(f"{name}: neither a checkpoint folder nor a released tool{nearest(tool, known)}")


def listed(address: str) -> list[tuple[str, str]]:
    """Tools and versions of a registry, versions from old to new.

    Raises:
        ConfigError: an address that cannot be read.
    """
    found = set()
    for path in store(address).names():
        parts = PurePosixPath(path).parts
        if len(parts) == 3 and parts[2] == checkpoint.MANIFEST and _is_version(parts[1]):
            found.add((parts[0], parts[1]))
    return sorted(found, key=lambda one: (one[0], parse(one[1])))


def pull(address: str, name: str, out: Path | None = None, key: Path | None = None) -> Path:
    """Fetches `tool` or `tool@version`, the newest where none is named; gives its folder.

    Args:
        address: Of the registry.
        name: Of the tool.
        out: The folder to make; among the pulled tools where left out.
        key: Public key of whoever has to have signed it.

    Raises:
        ConfigError: no such tool there, or something else lies at `out`.
        CheckpointError: what comes is not what its manifest or its signature says.
    """
    tool, version = _chosen(address, name)
    source, root = store(address), f"{tool}/{version}"
    place = out or pulled() / tool / version
    content = source.read(f"{root}/{checkpoint.MANIFEST}", checkpoint.MANIFEST_LIMIT)
    manifest = _manifest(content, f"{address}: {root}")
    _refuse_other(manifest, tool, version, f"{address}: {root}")
    if place.exists():
        return _present(place, content, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{uuid4().hex}")
    try:
        for own, digest in manifest.files.items():
            blob = _blob(source, f"{root}/{own}", digest)
            (fresh / own).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(blob, fresh / own)
        files.write(fresh / checkpoint.MANIFEST, content)
        checkpoint.read_manifest(fresh)
        signature = _signature(source, f"{root}{signing.SUFFIX}", fresh)
        _say(signing.verify(fresh, key), f"{tool}@{version}")
        if signature is not None:
            signature.replace(signing.beside(place))
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        signing.beside(fresh).unlink(missing_ok=True)
    return place


def push(folder: Path, address: str) -> str:
    """Puts a released folder into a registry, its manifest last; gives `tool/version`.

    Raises:
        CheckpointError: the folder is not what its manifest says.
        ConfigError: the registry has other content under this version.
    """
    manifest = checkpoint.read_manifest(folder)
    tool, version = str(manifest.tool["name"]), str(manifest.tool["version"])
    parse(version)
    target, root, content = store(address), f"{tool}/{version}", (folder / checkpoint.MANIFEST).read_bytes()
    path = f"{root}/{checkpoint.MANIFEST}"
    if path in set(target.names()):
        if target.read(path, checkpoint.MANIFEST_LIMIT) != content:
            raise ConfigError(f"{address}: {root} is there with other content, expected a new version")
        return root
    target.put(folder, root, [*sorted(manifest.files), checkpoint.MANIFEST])
    if (signature := signing.beside(folder)).is_file():
        target.put(folder.parent, tool, [signature.name], [f"{version}{signing.SUFFIX}"])
    return root


def _chosen(address: str, name: str) -> tuple[str, str]:
    tool, _, version = name.partition("@")
    there = listed(address)
    versions = [release for own, release in there if own == tool]
    if not versions:
        known = list(dict.fromkeys(own for own, _ in there))
        raise ConfigError(f"{address}: holds no {tool!r}{nearest(tool, known)}")
    if version and version not in versions:
        raise ConfigError(f"{address}: holds no {tool} {version}, expected {', '.join(versions)}")
    return tool, version or versions[-1]


def _manifest(content: bytes, where: str) -> Manifest:
    """Read as data; names of files must stay within their folder."""
    try:
        manifest = parsed(content)
    except (ValidationError, ValueError) as error:
        raise CheckpointError(f"{where}: manifest: {' '.join(str(error).split())[:200]}") from None
    if len(manifest.files) > FILES_LIMIT:
        raise CheckpointError(f"{where}: counts {len(manifest.files)} files, expected at most {FILES_LIMIT}")
    for name, digest in manifest.files.items():
        parts = PurePosixPath(name).parts
        if not parts or name != "/".join(parts) or parts[0] == "/" or ".." in parts or "\\" in name or ":" in name:
            raise CheckpointError(f"{where}: file {name!r} leads out of the folder, expected a plain name")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise CheckpointError(f"{where}: file {name!r} has no sha256")
    return manifest


def _refuse_other(manifest: Manifest, tool: str, version: str, where: str) -> None:
    found = (manifest.tool.get("name"), manifest.tool.get("version"))
    if found != (tool, version):
        raise CheckpointError(f"{where}: is {found[0]} {found[1]} by its manifest")


def _present(place: Path, content: bytes, key: Path | None) -> Path:
    """What lies there already, where it is the same."""
    path = place / checkpoint.MANIFEST
    if not path.is_file() or path.read_bytes() != content:
        raise ConfigError(f"{place}: something else is there already, expected a new folder")
    checkpoint.read_manifest(place)
    _say(signing.verify(place, key), place.name)
    return place


def _blob(source: Store, path: str, digest: str) -> Path:
    """A file's content, kept under its digest; fetched where it is not there whole."""
    place = build.cache_dir() / "blobs" / digest
    if place.is_file() and files.sha256(place) == digest:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{digest}.{uuid4().hex}")
    found = sha256()
    try:
        with draft.open("wb") as file:
            for piece in source.stream(path, FILE_LIMIT):
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != digest:
            raise CheckpointError(f"{path} is not the file that the manifest counts (sha256 differs)")
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return place


def _signature(source: Store, path: str, fresh: Path) -> Path | None:
    if path not in set(source.names()):
        return None
    place = signing.beside(fresh)
    files.write(place, source.read(path, SIGNATURE_LIMIT))
    return place


def _say(known: str, name: str) -> None:
    if known == "signed":
        logger.info("%s: signed, and the signature fits", name)
    else:
        logger.warning("%s: %s; its files are whole, but nobody vouches for them", name, known)


def _is_version(text: str) -> bool:
    try:
        parse(text)
    except ConfigError:
        return False
    return True


def _newest_first(path: Path) -> tuple[str, tuple[int, ...]]:
    version = path.parent.name
    return path.parents[1].name, tuple(-part for part in parse(version)) if _is_version(version) else ()
