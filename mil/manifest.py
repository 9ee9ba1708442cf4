"""The manifest of a checkpoint: everything that is not a weight. Manifests of every earlier schema are still read."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
)
from pydantic_core import from_json

from mil.endpoints.endpoint import Endpoint
from mil.features.encoders import Encoder
from mil.features.formats import Reading
from mil.features.geometry import Geometry
from mil.fitted.novelty import Packed, packed
from mil.fitted.state import BagSummaries, FittedState
from mil.simulation.clinical_variables import ClinicalVariable
from mil.study.flow import FlowStep
from mil.study.run_config import MOST_MEMBERS
from mil.study.tool import Tool

Json = dict[str, Any]
"""Options and fitted numbers in plain JSON types, which only the class that they belong to reads."""


class Part(BaseModel):
    """A class of this package and the options it was made with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    options: Json


class Clinical(BaseModel):
    """Covariates that a model reads besides the tiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    numeric: list[str]
    categorical: dict[str, list[str]]
    fusion: str
    """see `mil.models.fusion`"""
    embed_dim: int | None
    """embedding width of the inner model, where the fusion needs it"""
    state: Json
    """fitted to the training patients"""


class EncoderRecord(BaseModel):
    """The encoder of the features, as in `conf/encoder/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dim: int
    aliases: tuple[str, ...] = ()
    tile_px: int | None = None
    mpp: float | None = None
    licence: str = ""
    pretrained_on: tuple[str, ...] = ()
    level: Literal["tile", "slide"] = "tile"
    """whether it encodes tiles or whole slides"""
    verified: bool = False
    """whether every feature file names this encoder"""
    parts: tuple[Encoder, ...] = ()
    """the encoders of the same tiles whose features are joined, in the order of their blocks"""
    combined: Literal["concatenate", "ensemble"] = "concatenate"
    """whether one model reads all blocks, or each member of an ensemble the block of its encoder"""

    def encoder(self) -> Encoder:
        """Return the encoder itself."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Encoder(**{name: value for name, value in fields.items() if name not in ("verified", "combined")})

    @model_serializer(mode="wrap")
    def _without_parts(self, handler: SerializerFunctionWrapHandler) -> Json:
        """Leave out what only several encoders have."""
        fields: Json = handler(self)
        return fields if self.parts else {key: fields[key] for key in fields if key not in ("parts", "combined")}


class _Record(BaseModel):
    """A part of the manifest that may have further keys."""

    model_config = ConfigDict(extra="allow", frozen=True)


class SplitRecord(_Record):
    """How patients were divided."""

    strategy: dict[str, JsonValue] = {}
    """the split's class and options"""
    sha256: str = ""
    """digest of the roles of all patients"""
    fold: int = 0
    """of these weights"""

    @property
    def name(self) -> str:
        """Class of the split."""
        return str(self.strategy.get("_target_", "given")).rpartition(".")[2]


class SimulationRecord(_Record):
    """Options of a simulated cohort; those that a card states have a field."""

    sites: int | None = None
    slides: int | float | None = None
    """per patient, mean"""
    tiles: int | None = None
    """per slide, median"""
    label_noise: float | None = None
    contrast: float | None = None
    clinical: dict[str, ClinicalVariable] | None = None
    """the clinical columns with their distributions and effects"""


class DataRecord(_Record):
    """What the checkpoint was trained on."""

    simulated: bool = False
    simulation: SimulationRecord | None = None
    cohort_sha256: str = ""
    slides_sha256: str | None = None
    patients: dict[str, dict[str, int]] = {}
    """by role: `n`, and the positives, classes or events among them"""
    flow: tuple[FlowStep, ...] = ()
    """from the clinical table to the patients of the study; empty where it was not recorded"""
    bag: Literal["patient", "slide"] = "patient"
    """what a bag is: all tiles of a patient or of a slide"""
    geometry: Geometry = Geometry()
    """of the tiles"""
    reading: Reading = Reading()
    """how feature files that leave something open were read"""
    split: SplitRecord = SplitRecord()
    mean_tile: Packed | None = None
    """mean features of all tiles of the training patients, `(d,)`; explanations compare tiles with it"""


class SelectionRecord(_Record):
    """How the epoch was chosen whose weights count, see `mil.training.epoch_choice`."""

    best_epochs: int = 1
    """how many epochs with the lowest losses are averaged at most"""
    moving_average: float = 0.0
    """epochs over which the weights are averaged; 0: those of the last step"""
    refit: int | None = None
    """parts that chose the number of epochs before the patients of training and model selection trained together"""


class TrainingRecord(_Record):
    """How the weights were trained."""

    epochs: int = 0
    best_epoch: int | None = None
    """the epoch whose weights these are; None for the last; of several, that of the lowest loss"""
    averaged_epochs: list[int] = []
    """the other epochs whose weights were averaged with it"""
    selection: SelectionRecord | None = None
    """how it was chosen; None: the epoch of the lowest loss on the patients of model selection"""
    precision: str = ""
    seed: int = 0
    threads: int = 1
    parameters: int = 0
    optimizer: dict[str, JsonValue] = {}
    schedule: dict[str, JsonValue] | None = None
    data: dict[str, JsonValue] = {}
    """options of `data`"""
    versions: dict[str, str] = {}
    """of this package and of the libraries that numbers depend on"""

    @property
    def best_epochs(self) -> list[int]:
        """The epochs whose weights count, that of the lowest loss first; empty: the last one."""
        return [] if self.best_epoch is None else [self.best_epoch, *self.averaged_epochs]

    @property
    def refitted(self) -> bool:
        """Whether the patients of model selection trained too."""
        return self.selection is not None and self.selection.refit is not None


class ImportRecord(BaseModel):
    """Where weights come from that other software trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    """the architecture, see `mil.inference.foreign_weights`"""
    file: str
    """name of the file"""
    sha256: str
    source: str
    """who published it, as the importer stated"""
    licence: str
    """of the weights, as the importer stated"""
    has_head: bool
    """whether the file had a classifier; without one predictions mean nothing before training"""


class Manifest(BaseModel):
    """What a checkpoint is: everything that is not a weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[3] = 3
    tool: Tool
    model: Part
    """the network; of an ensemble each of its members"""
    members: Annotated[int, Field(strict=True, ge=1, le=MOST_MEMBERS)] = 1
    """networks, of several encoders those for each, that differ by their random start and whose logits are averaged"""
    endpoint: Part
    fitted: FittedState
    """fitted once, at the end of training; whoever predicts or reports applies it"""
    encoder: EncoderRecord
    data: DataRecord = DataRecord()
    training: TrainingRecord = TrainingRecord()
    covariates: Clinical | None = None
    """what the model reads besides the tiles; `model` is then the inner model of the fusion"""
    imported: ImportRecord | None = None
    """where weights come from that `mil import` read"""
    files: dict[str, str] = {}
    """sha256 of every other file"""

    @field_serializer("tool")
    def _as_stated(self, tool: Tool) -> Json:
        return tool.plain()

    @model_serializer(mode="wrap")
    def _without_members(self, handler: SerializerFunctionWrapHandler) -> Json:
        """Leave out what only an ensemble has."""
        fields: Json = handler(self)
        return fields if self.members > 1 else {key: fields[key] for key in fields if key != "members"}


def part(instance: object, options: Json) -> Part:
    """Return the record of an instance, by its class and options."""
    return Part(name=f"{type(instance).__module__}.{type(instance).__qualname__}", options=dict(options))


def mean_tile(bags: BagSummaries) -> Packed:
    """Return the mean features of all tiles of these bags, packed; every tile counts the same."""
    return packed((bags.tiles / bags.tiles.sum()) @ bags.means)


def endpoint_part(endpoint: Endpoint, options: Json) -> Part:
    """Return the record of an endpoint from the options of a yaml, including the endpoints within it."""
    option = endpoint.nested_option
    if option is None:
        return part(endpoint, options)
    nodes = {name: {k: v for k, v in node.items() if k != "_target_"} for name, node in options[option].items()}
    nested = {name: part(endpoint.parts()[name], node).model_dump() for name, node in nodes.items()}
    return part(endpoint, {**options, option: nested})


def encoder_record(
    encoder: Encoder, verified: bool, combined: Literal["concatenate", "ensemble"] = "concatenate"
) -> EncoderRecord:
    """Return the record of an encoder, or of several and how a model reads them."""
    return EncoderRecord.model_validate({**asdict(encoder), "verified": verified, "combined": combined})


def parsed(content: bytes) -> Manifest:
    """Return the manifest in a file of any schema, brought to the present one.

    Raises:
        ValidationError: it is not a manifest.
        ValueError: not JSON.
    """
    raw = from_json(content)
    if isinstance(raw, dict) and raw.get("schema_version") == 1:
        raw = _from_1(raw)
    if isinstance(raw, dict) and raw.get("schema_version") == 2:
        raw = _from_2(raw)
    return Manifest.model_validate(raw)


def _from_1(raw: Json) -> Json:
    """Schema 1 had at most one cut, of a binary score, fitted on select patients."""
    fitted = raw.get("fitted")
    if not isinstance(fitted, dict):
        return {**raw, "schema_version": 2}
    cut, classes = fitted.get("threshold"), raw.get("endpoint", {}).get("options", {}).get("classes")
    upgraded = {key: value for key, value in fitted.items() if not key.startswith("threshold")}
    if cut is not None and isinstance(classes, list):
        select = raw.get("data", {}).get("patients", {}).get("select", {})
        decision = {
            "name": classes[-1],
            "columns": [f"p_{classes[-1]}"],
            "rule": fitted.get("threshold_rule") or {},
            "cuts": [cut],
            "calls": classes,
            "on": "select",
            "n": select.get("n", 0),
            "positives": select.get(classes[-1]),
        }
        upgraded["decisions"] = [decision]
    return {**raw, "schema_version": 2, "fitted": upgraded}


def _from_2(raw: Json) -> Json:
    """Schema 2 had no risk groups for tools that state none, no reasons, and null in place of no decisions."""
    fitted = raw.get("fitted")
    if not isinstance(fitted, dict):
        return {**raw, "schema_version": 3}
    return {**raw, "schema_version": 3, "fitted": {**fitted, "decisions": fitted.get("decisions") or []}}
