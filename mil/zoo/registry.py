"""Find released tools by name: those that come with the package, those already pulled, and those in registries.

A registry holds `<tool>/<version>/<files>`, and for a signed version also `<tool>/<version>.sig`. It is a local folder,
any address that fsspec supports, or `hf://owner/repo` on the Hugging Face Hub. Nothing that it sends is trusted: the
manifest is read as data, and every other file must have the digest that the manifest gives before anything reads it.
Downloaded files are cached by digest, so that an interrupted pull continues and no file is fetched twice.
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
from mil.progress import counted
from mil.study import build
from mil.zoo import signing
from mil.zoo.policy import check_origin
from mil.zoo.stores import Store, store
from mil.zoo.versions import parse

FILE_LIMIT, FILES_LIMIT = 2**33, 1000
logger = logging.getLogger(__name__)


def built_in() -> Path:
    """Return the folder of tools that come with the package: inside it in a wheel, next to it in a checkout."""
    package = Path(mil.__file__).parent
    in_wheel, in_checkout = package / "model_cards", package.parent / "model_cards"
    return in_wheel if in_wheel.is_dir() else in_checkout


def pulled() -> Path:
    """Return the folder of pulled tools, `<tool>/<version>` below it."""
    return build.cache_dir() / "zoo"


def tool_names() -> list[str]:
    """Return the names of the local tools, without reading them."""
    places = (*built_in().glob(f"*/{checkpoint.MANIFEST}"), *pulled().glob(f"*/*/{checkpoint.MANIFEST}"))
    packaged = {place.parent.name for place in places if place.parents[1] == built_in()}
    return sorted(packaged | {place.parents[1].name for place in places if place.parents[1] != built_in()})


def local() -> Iterator[tuple[str, str, Path]]:
    """Yield name, version and folder of every local tool: the package's own, then pulled ones, newest first.

    Raises:
        CheckpointError: if a manifest cannot be read.
    """
    for path in sorted(built_in().glob(f"*/{checkpoint.MANIFEST}")):
        yield path.parent.name, _manifest(path.read_bytes(), str(path)).tool.version, path.parent
    for path in sorted(pulled().glob(f"*/*/{checkpoint.MANIFEST}"), key=_newest_first):
        yield path.parents[1].name, path.parent.name, path.parent


def resolve(name: str | Path) -> Path:
    """Return the folder of a checkpoint, given as a path, a tool's name (`msi-crc`), or name and version
    (`msi-crc@1.0.0`).

    Raises:
        ConfigError: if it is neither a folder nor a local tool.
    """
    path = Path(name).expanduser()
    if (path / checkpoint.MANIFEST).exists() or os.sep in str(name):
        return path
    tool, _, version = str(name).partition("@")
    released = list(local())
    for tool_name, release, folder in released:
        if tool_name == tool and version in ("", release):
            return folder
    if path.is_dir():
        return path
    names = list(dict.fromkeys(tool_name for tool_name, _, _ in released))
    if tool in names:
        versions = ", ".join(release for tool_name, release, _ in released if tool_name == tool)
        raise ConfigError(f"{tool}: no local version {version}, expected {versions} (mil zoo pull fetches others)")
    raise ConfigError(f"{name}: neither a checkpoint folder nor a released tool{nearest(tool, names)}")


def listed(address: str) -> list[tuple[str, str]]:
    """Return tools and versions of a registry, versions from old to new.

    Raises:
        ConfigError: if the address cannot be read.
    """
    releases = set()
    for path in store(address).names():
        tool, _, rest = path.partition("/")
        version, _, file = rest.partition("/")
        if file == checkpoint.MANIFEST and _is_version(version):
            releases.add((tool, version))
    return sorted(releases, key=lambda release: (release[0], parse(release[1])))


def listed_origins(address: str) -> Iterator[tuple[str, str, bool | None]]:
    """Yield tool, version and whether it was trained on simulated data; None where its manifest cannot be read.

    Raises:
        ConfigError: if the address cannot be read.
    """
    source = store(address)
    for tool, version in listed(address):
        try:
            content = source.read(f"{tool}/{version}/{checkpoint.MANIFEST}", checkpoint.MANIFEST_LIMIT)
            yield tool, version, _manifest(content, f"{address}: {tool}/{version}").data.simulated
        except CheckpointError:
            yield tool, version, None


def pull(address: str, name: str, out: Path | None = None, key: Path | None = None) -> Path:
    """Download `tool` or `tool@version` (by default the newest) and return its folder.

    Args:
        address: Address of the registry.
        name: Name of the tool.
        out: Folder to create; by default among the pulled tools.
        key: Public key of the expected signer.

    Raises:
        ConfigError: if the registry has no such tool, or `out` exists with other content.
        CheckpointError: if a file does not match the manifest, or the folder its signature.
    """
    if key is not None:
        signing.check_key(key, "public")
    tool, version = _chosen(address, name)
    source, root = store(address), f"{tool}/{version}"
    place = out or pulled() / tool / version
    content = source.read(f"{root}/{checkpoint.MANIFEST}", checkpoint.MANIFEST_LIMIT)
    manifest = _manifest(content, f"{address}: {root}")
    _check_identity(manifest, tool, version, f"{address}: {root}")
    if place.exists():
        return _existing(place, content, key)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{uuid4().hex}")
    try:
        for file, digest in counted(manifest.files.items(), f"downloading {tool}", len(manifest.files)):
            blob = _cached_file(source, f"{root}/{file}", digest)
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            with files.writing(place):
                shutil.copyfile(blob, draft / file)
        files.write(draft / checkpoint.MANIFEST, content)
        checkpoint.read_manifest(draft)
        signature = _download_signature(source, f"{root}{signing.SUFFIX}", draft)
        _log_signature(check_origin(draft, key), f"{tool}@{version}")
        if signature is not None:
            signature.replace(signing.signature_path(place))
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        signing.signature_path(draft).unlink(missing_ok=True)
    return place


def push(folder: Path, address: str) -> str:
    """Upload a released folder to a registry, its manifest last, and return `tool/version`.

    Raises:
        CheckpointError: if the folder does not match its manifest.
        ConfigError: if the registry holds this version with other content.
    """
    manifest = checkpoint.read_manifest(folder)
    tool, version = manifest.tool.name, manifest.tool.version
    parse(version)
    target, root, content = store(address), f"{tool}/{version}", (folder / checkpoint.MANIFEST).read_bytes()
    path = f"{root}/{checkpoint.MANIFEST}"
    if path in set(target.names()):
        if target.read(path, checkpoint.MANIFEST_LIMIT) != content:
            raise ConfigError(f"{address}: {root} exists with other content, expected a new version")
        return root
    target.put(folder, root, [*sorted(manifest.files), checkpoint.MANIFEST])
    if (signature := signing.signature_path(folder)).is_file():
        target.put(folder.parent, tool, [signature.name], [f"{version}{signing.SUFFIX}"])
    return root


def _chosen(address: str, name: str) -> tuple[str, str]:
    tool, _, version = name.partition("@")
    releases = listed(address)
    versions = [release for tool_name, release in releases if tool_name == tool]
    if not versions:
        names = list(dict.fromkeys(tool_name for tool_name, _ in releases))
        raise ConfigError(f"{address}: holds no {tool!r}{nearest(tool, names)}")
    if version and version not in versions:
        raise ConfigError(f"{address}: holds no {tool} {version}, expected {', '.join(versions)}")
    return tool, version or versions[-1]


def _manifest(content: bytes, where: str) -> Manifest:
    """Parse a manifest as data and check that its file names stay within the folder."""
    try:
        manifest = parsed(content)
    except (ValidationError, ValueError) as error:
        raise CheckpointError(f"{where}: manifest: {' '.join(str(error).split())[:200]}") from None
    if len(manifest.files) > FILES_LIMIT:
        raise CheckpointError(f"{where}: lists {len(manifest.files)} files, expected at most {FILES_LIMIT}")
    for name, digest in manifest.files.items():
        if not _is_plain_path(name):
            raise CheckpointError(f"{where}: file {name!r} leads out of the folder, expected a plain name")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise CheckpointError(f"{where}: file {name!r} has no sha256")
    return manifest


def _is_plain_path(name: str) -> bool:
    """Return whether a file name is relative, normalised, and the same on every system."""
    steps = PurePosixPath(name).parts
    relative = bool(steps) and name == "/".join(steps) and steps[0] != "/" and ".." not in steps
    return relative and "\\" not in name and ":" not in name


def _check_identity(manifest: Manifest, tool: str, version: str, where: str) -> None:
    identity = (manifest.tool.name, manifest.tool.version)
    if identity != (tool, version):
        raise CheckpointError(f"{where}: is {identity[0]} {identity[1]} by its manifest")


def _existing(place: Path, content: bytes, key: Path | None) -> Path:
    """Return the folder that exists already, after checking that it is the same release."""
    path = place / checkpoint.MANIFEST
    if not path.is_file() or path.read_bytes() != content:
        raise ConfigError(f"{place}: exists with other content, expected a new folder")
    checkpoint.read_manifest(place)
    _log_signature(check_origin(place, key), place.name)
    return place


def _cached_file(source: Store, path: str, digest: str) -> Path:
    """Return the cached file with this digest, downloading it if it is missing or damaged."""
    place = build.cache_dir() / "blobs" / digest
    if place.is_file() and files.sha256(place) == digest:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{digest}.{uuid4().hex}")
    received = sha256()
    try:
        with draft.open("wb") as file:
            for chunk in source.stream(path, FILE_LIMIT):
                received.update(chunk)
                file.write(chunk)
        if received.hexdigest() != digest:
            raise CheckpointError(f"{path} is not the file that the manifest lists (sha256 differs)")
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return place


def _download_signature(source: Store, path: str, folder: Path) -> Path | None:
    if path not in set(source.names()):
        return None
    place = signing.signature_path(folder)
    files.write(place, source.read(path, signing.SIGNATURE_LIMIT))
    return place


def _log_signature(state: str, name: str) -> None:
    if state == "signed":
        logger.info("%s: signed, and the signature matches", name)
    else:
        logger.warning("%s: %s; its files are intact, but their origin is not proven", name, state)


def _is_version(text: str) -> bool:
    try:
        parse(text)
    except ConfigError:
        return False
    return True


def _newest_first(path: Path) -> tuple[str, tuple[int, ...]]:
    version = path.parent.name
    return path.parents[1].name, tuple(-part for part in parse(version)) if _is_version(version) else ()
