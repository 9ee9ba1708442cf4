"""A model as a folder: `weights.safetensors`, `manifest.json`, and the files that the manifest lists.

A folder from elsewhere is not trusted. Its manifest is data: the model and the endpoint that it names must be classes
of this package, or be allowed by name; nothing in it is interpolated, imported or unpickled. Every file must have the
digest that the manifest states, and there may be no other file.
"""

import importlib
import inspect
import pkgutil
import shutil
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import mil.endpoints
import mil.models
from mil import files
from mil.cohort.columns import Words
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, ConfigError, MilError
from mil.features.encoders import Encoder
from mil.features.formats import Reading
from mil.features.geometry import Geometry
from mil.manifest import Clinical, Manifest, Part, parsed
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import NetworkEnsemble
from mil.storage import read_bytes

WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
HEADER_LIMIT, MANIFEST_LIMIT, TENSOR_LIMIT, PARAMETER_LIMIT = 2**20, 2**20, 2000, 10**9


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint folder, read and verified."""

    folder: Path
    manifest: Manifest
    model: MILModel
    endpoint: Endpoint
    encoder: Encoder
    geometry: Geometry
    """of the tiles that it was trained on"""
    reading: Reading
    """how its features were read"""
    covariates: Covariates | None = None
    """the fitted covariates that the model reads besides the tiles"""
    words: Words = field(default_factory=dict)
    """meaning of the words in the clinical table, by column, as stated in training (`data.labels`)"""

    def words_of(self, columns: Collection[str]) -> Words:
        """Return the label maps of the given columns."""
        return {column: meanings for column, meanings in self.words.items() if column in columns}


def save(folder: Path, model: MILModel, manifest: Manifest) -> None:
    """Write weights and manifest; the manifest comes last, so that a folder with a manifest is complete.

    Anything that a killed process left in the folder is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    files.write(folder / WEIGHTS, save_tensors(weights))
    seal(folder, manifest)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with the digests of all other files in the folder."""
    digests = {name: files.sha256(folder / name) for name in sorted(_listed(folder))}
    files.write(folder / MANIFEST, manifest.model_copy(update={"files": digests}).model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest, after checking its files.

    Raises:
        CheckpointError: no checkpoint, another schema, or a file changed, missing or added.
    """
    manifest = unverified(folder)
    _verify(folder, manifest)
    return manifest


def reopened(folder: Path) -> Manifest:
    """Return the manifest of a run's own checkpoint whose report and card are to be written again.

    Temporary files of a killed process are removed; only the weights are checked.

    Raises:
        CheckpointError: no checkpoint, another schema, or other weights than the manifest lists.
    """
    manifest = unverified(folder)
    for path in folder.glob(".*"):  # temporary files of `files.write`
        path.unlink()
    _verify_weights(folder, manifest)
    return manifest


def unverified(folder: Path) -> Manifest:
    """Return the manifest; the files that it lists are not read.

    Raises:
        CheckpointError: no checkpoint, or another schema.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it holds no {MANIFEST}")
    if path.stat().st_size > MANIFEST_LIMIT:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, expected at most {MANIFEST_LIMIT}")
    try:
        manifest = parsed(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise CheckpointError(f"{path}: {where}: {first['msg']} ({error.error_count()} problems)") from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {_line(error)}, expected JSON") from None
    return manifest


def load(folder: Path, allow: Collection[str] = ()) -> Checkpoint:
    """Read a checkpoint, with the model in evaluation mode.

    Args:
        folder: Of the checkpoint.
        allow: Import paths of classes outside this package that may be used.

    Raises:
        CheckpointError: the folder does not fit its manifest or the classes of this package.
    """
    manifest = read_manifest(folder)
    endpoint = endpoint_of(manifest.endpoint, allow, folder)
    covariates = None if manifest.covariates is None else _covariates(manifest.covariates, folder)
    try:
        endpoint.load_state(manifest.fitted.endpoint)
        endpoint.decode(torch.zeros(1, endpoint.out_dim))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: fitted.endpoint: {_line(error)}") from None
    encoder = manifest.encoder.encoder()
    for name, width in (("in_dim", encoder.dim), ("out_dim", endpoint.out_dim)):
        if (stated := manifest.model.options.get(name)) != width:
            raise CheckpointError(f"{folder / MANIFEST}: model.options.{name} is {stated!r}, expected {width}")
    widths = (covariates.width if covariates else 0, endpoint.out_dim)
    with torch.device("meta"):  # sizes are judged before memory is taken
        shape = _model(manifest, *widths, allow, folder)
    _check_size(shape, folder)
    model = _model(manifest, *widths, allow, folder)
    _load_weights(model, folder)
    geometry, reading, words = manifest.data.geometry, manifest.data.reading, _words(manifest, folder)
    return Checkpoint(folder, manifest, model.eval(), endpoint, encoder, geometry, reading, covariates, words)


def endpoint_of(part: Part, allow: Collection[str], folder: Path) -> Endpoint:
    """Return the endpoint that a manifest describes, with nothing fitted.

    Endpoints within another one are made first, from the same list of allowed classes.

    Raises:
        CheckpointError: the class is not one of this package, or does not take these options.
    """
    option = _class(part.name, mil.endpoints, Endpoint, allow, folder).nested_option
    if option is not None:
        nested = _validated(dict[str, Part], part.options.get(option), f"endpoint.options.{option}", folder)
        made = {name: _instance(inner, mil.endpoints, Endpoint, allow, folder) for name, inner in nested.items()}
        part = part.model_copy(update={"options": {**part.options, option: made}})
    return cast(Endpoint, _instance(part, mil.endpoints, Endpoint, allow, folder))


def _covariates(clinical: Clinical, folder: Path) -> Covariates:
    try:
        covariates = Covariates(clinical.numeric, clinical.categorical)
        covariates.load_state(clinical.state)
    except (TypeError, ValueError, KeyError, MilError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: covariates: {_line(error)}") from None
    return covariates


def _model(manifest: Manifest, width: int, out_dim: int, allow: Collection[str], folder: Path) -> MILModel:
    model = _reader_of(manifest, allow, folder)
    if (clinical := manifest.covariates) is None:
        return model
    try:
        return Fused(model, width, out_dim, clinical.fusion, clinical.embed_dim)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: covariates: {_line(error)}") from None


def _reader_of(manifest: Manifest, allow: Collection[str], folder: Path) -> MILModel:
    """Return the model of the features alone, with all members where it is an ensemble."""
    encoder = manifest.encoder.encoder()
    by_encoder = bool(encoder.parts) and manifest.encoder.combined == "ensemble"
    read = [width for width in (encoder.widths if by_encoder else (encoder.dim,)) for _ in range(manifest.members)]
    parts = [
        manifest.model.model_copy(update={"options": {**manifest.model.options, "in_dim": width}}) for width in read
    ]
    members = [cast(MILModel, _instance(part, mil.models, MILModel, allow, folder)) for part in parts]
    if len(members) == 1:
        return members[0]
    try:
        return NetworkEnsemble(members, encoder.widths if by_encoder else ())
    except ValueError as error:
        where = "encoder.combined" if by_encoder else "members"
        raise CheckpointError(f"{folder / MANIFEST}: {where}: {_line(error)}") from None


def _validated(kind: Any, value: object, where: str, folder: Path) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise CheckpointError(f"{folder / MANIFEST}: {where}: {_line(error)}") from None


def _words(manifest: Manifest, folder: Path) -> Words:
    labels = manifest.training.data.get("labels") or {}
    by_column = _validated(dict[str, dict[str, str | int | float | None]], labels, "training.data.labels", folder)
    return {
        column: {word: None if meaning is None else str(meaning) for word, meaning in meanings.items()}
        for column, meanings in by_column.items()
    }


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _listed(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path} is a link or a device, a checkpoint holds plain files")
        if path.is_file() and path != folder / MANIFEST:
            yield path.relative_to(folder).as_posix()


def _verify(folder: Path, manifest: Manifest) -> None:
    names = set(_listed(folder))
    if missing := sorted(set(manifest.files) - names):
        raise CheckpointError(f"{folder}: {missing[0]} is missing, the manifest counts it")
    if extra := sorted(names - set(manifest.files)):
        raise CheckpointError(f"{folder}: {extra[0]} is not in the manifest")
    for name, digest in manifest.files.items():
        _verify_file(folder, name, digest)
    _verify_weights(folder, manifest)


def _verify_weights(folder: Path, manifest: Manifest) -> None:
    if WEIGHTS not in manifest.files or not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder}: {WEIGHTS} is missing")
    _verify_file(folder, WEIGHTS, manifest.files[WEIGHTS])


def _verify_file(folder: Path, name: str, digest: str) -> None:
    if files.sha256(folder / name) != digest:
        raise CheckpointError(f"{folder}: {name} is not the file that the manifest counts (sha256 differs)")


def _instance(part: Part, package: ModuleType, base: type[Any], allow: Collection[str], folder: Path) -> Any:
    cls = _class(part.name, package, base, allow, folder)
    try:
        return cls(**part.options)
    except (TypeError, ValueError, AttributeError, RuntimeError, MilError) as error:
        raise CheckpointError(f"{folder}: {part.name} cannot be made of its options: {_line(error)}") from None


def _class(name: str, package: ModuleType, base: type[Any], allow: Collection[str], folder: Path) -> type[Any]:
    if name in allow:
        return _allowed(name, base, folder)
    classes = dict(_classes(package, base))
    if name not in classes:
        raise CheckpointError(
            f"{folder}: {name!r} is no {base.__name__} of this package; --allow {name} trusts it all the same"
        )
    return classes[name]


def _allowed(name: str, base: type[Any], folder: Path) -> type[Any]:
    module, _, attribute = name.rpartition(".")
    try:
        allowed = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder}: --allow {name} cannot be imported: {_line(error)}") from None
    if not (inspect.isclass(allowed) and issubclass(allowed, base)):
        raise CheckpointError(f"{folder}: --allow {name} is no {base.__name__}")
    return allowed


def _classes(package: ModuleType, base: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, base) and member.__module__ == module.__name__ and not inspect.isabstract(member):
                yield f"{module.__name__}.{name}", member


def _check_size(model: MILModel, folder: Path) -> None:
    parameters = sum(tensor.numel() for tensor in model.state_dict().values())
    if parameters > PARAMETER_LIMIT:
        raise CheckpointError(f"{folder}: a model of {parameters} parameters, expected at most {PARAMETER_LIMIT}")


def _load_weights(model: MILModel, folder: Path) -> None:
    content = read_bytes(folder / WEIGHTS)
    header = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 0 < header <= HEADER_LIMIT:
        raise CheckpointError(f"{folder / WEIGHTS}: a header of {header} bytes, expected 1 to {HEADER_LIMIT}")
    try:
        tensors = load_tensors(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:  # the latter of odd dtypes and shapes
        raise CheckpointError(f"{folder / WEIGHTS}: {_line(error)}") from None
    expected = model.state_dict()
    if len(tensors) > TENSOR_LIMIT or set(tensors) != set(expected):
        names = sorted(set(tensors) ^ set(expected))
        raise CheckpointError(f"{folder / WEIGHTS}: tensors differ from the model's: {', '.join(names[:3])}")
    for name, tensor in tensors.items():
        shape, dtype = expected[name].shape, expected[name].dtype
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} is {tuple(tensor.shape)} {tensor.dtype}, expected {tuple(shape)} {dtype}"
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f"{folder / WEIGHTS}: {name} is not finite")
    model.load_state_dict(tensors)
