"""A checkpoint of this package made of weights that other software trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mil import checkpoint, files
from mil import manifest as manifests
from mil.endpoints.classification import Binary, Multiclass
from mil.errors import ConfigError
from mil.features.encoders import Encoder
from mil.fitted.state import FittedState
from mil.inference.foreign_weights import Mapped, mapped, read
from mil.manifest import ImportRecord, Manifest
from mil.output_places import check_output_folder
from mil.study import build
from mil.study.tool import Tool


@dataclass(frozen=True)
class Origin:
    """What is stated about weights, because their file does not say it.

    Attributes:
        encoder: The encoder of the features that they were trained on, by its name in `conf/encoder/`.
        classes: Of the logits, of two for one logit the positive one last; empty for numbers.
        source: Who published the weights.
        licence: Of the weights.
        column: Of the clinical table with the classes.
    """

    encoder: str
    classes: Sequence[str] = ()
    source: str = "not stated"
    licence: str = "not stated"
    column: str = "label"


def import_checkpoint(kind: str, path: Path, out: Path, origin: Origin) -> Manifest:
    """Write a checkpoint whose outputs equal those of the source, and return its manifest.

    Args:
        kind: The architecture: clam, feather, torchmil or xmil.
        path: The file with the weights.
        out: A new or empty folder.
        origin: What the file does not say.

    Raises:
        CheckpointError: The file holds other weights than the architecture has, or cannot be read.
        ConfigError: The encoder's width or the number of classes does not fit the weights.
    """
    check_output_folder(out, [path], option="--out")
    result = mapped(kind, read(path))
    encoder = _encoder(origin.encoder, int(str(result.options["in_dim"])))
    endpoint = _endpoint(origin, int(str(result.options["out_dim"])))
    record = ImportRecord(
        kind=kind,
        file=path.name,
        sha256=files.sha256(path),
        source=origin.source,
        licence=origin.licence,
        has_head=result.has_head,
    )
    manifest = Manifest(
        tool=Tool(name=f"imported-{kind}", version="0.0.0"),
        model=manifests.part(result.model, result.options),
        endpoint=manifests.part(endpoint, {"column": origin.column, "classes": list(endpoint.classes)}),
        fitted=FittedState(endpoint=endpoint.state()),
        encoder=manifests.encoder_record(encoder, verified=False),
        training=manifests.TrainingRecord(parameters=_parameters(result)),
        imported=record,
    )
    checkpoint.save(out, result.model, manifest)
    return checkpoint.load(out).manifest


def _parameters(result: Mapped) -> int:
    return sum(weight.numel() for weight in result.model.parameters())


def _encoder(name: str, width: int) -> Encoder:
    encoder = next((each for each in build.known_encoders() if each.answers_to(name)), Encoder(name, width))
    if encoder.dim != width:
        raise ConfigError(f"--encoder {name} makes features {encoder.dim} wide, the weights read {width}")
    return encoder


def _endpoint(origin: Origin, out_dim: int) -> Binary | Multiclass:
    count = 2 if out_dim == 1 else out_dim
    classes = tuple(origin.classes) or tuple(str(place) for place in range(count))
    if len(classes) != count:
        raise ConfigError(f"--classes names {len(classes)} classes ({', '.join(classes)}), the weights have {count}")
    return Binary(origin.column, classes) if out_dim == 1 else Multiclass(origin.column, classes)
