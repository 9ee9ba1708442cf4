"""The manifest of a checkpoint: everything that is not a weight. Manifests of every earlier schema are still read."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from mil.endpoints.endpoint import Endpoint
from mil.features.encoders import Encoder
from mil.fitted.state import FittedState
from mil.study.tool import Tool


class Part(BaseModel):
    """A class of this package and the options it was made with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    options: dict[str, Any]


class Clinical(BaseModel):
    """Covariates that a model reads beside the tiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    numeric: list[str]
    categorical: dict[str, list[str]]
    fusion: str
    """how, see `mil.models.fusion`"""
    embed_dim: int | None
    """of the model within, where the fusion needs it"""
    state: dict[str, Any]
    """fitted to the training patients"""


class Manifest(BaseModel):
    """What a checkpoint is: everything that is not a weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[3] = 3
    tool: Tool
    model: Part
    endpoint: Part
    fitted: FittedState
    """fitted once, at the end of training; whoever predicts or reports applies it"""
    encoder: dict[str, Any]
    """name and width as in `conf/encoder/`, and whether every feature file said so itself"""
    data: dict[str, Any]
    """cohort (digest, patients, bags, simulated or not), split (digest, strategy, fold), the tiles' geometry as
    the files or the user said it, and how files that leave it open were read"""
    training: dict[str, Any]
    """seed, epochs, precision, threads, versions"""
    covariates: Clinical | None = None
    """what the model reads beside the tiles; `model` is then the one within"""
    files: dict[str, str] = {}
    """sha256 of every other file"""


def part(instance: object, options: Mapping[str, Any]) -> Part:
    """How a manifest names an instance's class."""
    return Part(name=f"{type(instance).__module__}.{type(instance).__qualname__}", options=dict(options))


def endpoint_part(endpoint: Endpoint, options: Mapping[str, Any]) -> Part:
    """Return the record of an endpoint from the options of a yaml, including the endpoints within it."""
    option = endpoint.nested_option
    if option is None:
        return part(endpoint, options)
    nodes = {name: {k: v for k, v in node.items() if k != "_target_"} for name, node in options[option].items()}
    nested = {name: part(endpoint.parts()[name], node).model_dump() for name, node in nodes.items()}
    return part(endpoint, {**options, option: nested})


def encoder_record(encoder: Encoder, verified: bool) -> dict[str, Any]:
    """How a manifest names an encoder."""
    return asdict(encoder) | {"verified": verified}


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


def _from_1(raw: Mapping[str, Any]) -> dict[str, Any]:
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


def _from_2(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 2 had no risk groups for tools that state none, no reasons, and null in place of no decisions."""
    fitted = raw.get("fitted")
    if not isinstance(fitted, dict):
        return {**raw, "schema_version": 3}
    return {**raw, "schema_version": 3, "fitted": {**fitted, "decisions": fitted.get("decisions") or []}}
