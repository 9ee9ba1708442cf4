"""The published JSON Schema is that of today's models, and reports keep to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mil.report.json_schema import report_schema, schema_text
from mil.report.report_files import read_report
from mil.report.schema import section_classes

from .figures.cases import CASES, evaluated

PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"
STORED = sorted((Path(__file__).parent / "schema_2").glob("*.json"))
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def valid(document: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Return whether a document keeps to a schema; of the keywords, those that pydantic uses for our models."""
    if "$ref" in schema:
        return valid(document, definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return any(valid(document, each, definitions) for each in schema["anyOf"])
    if "const" in schema and document != schema["const"]:
        return False
    if "type" in schema and not isinstance(document, TYPES[schema["type"]]):
        return False
    if isinstance(document, list):
        items = schema.get("prefixItems") or [schema.get("items", {})] * len(document)
        return len(items) == len(document) and all(map(lambda i, s: valid(i, s, definitions), document, items))
    if isinstance(document, dict):
        further = schema.get("additionalProperties", True)
        properties = schema.get("properties", {})
        unknown = {key: value for key, value in document.items() if key not in properties}
        named = all(valid(document[key], each, definitions) for key, each in properties.items() if key in document)
        if not named or not set(schema.get("required", ())) <= set(document):
            return False
        if isinstance(further, bool):
            return further or not unknown
        return all(valid(value, further, definitions) for value in unknown.values())
    return True


def test_the_published_schema_is_current() -> None:
    expected = "python -m mil.report.json_schema > docs/report.schema.json"
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), f"run {expected}"


def test_every_section_is_described() -> None:
    schema = report_schema()
    sections = schema["$defs"]["Report"]["properties"]["sections"]["properties"]
    assert set(sections) == {section.key for section in section_classes()}


@pytest.mark.parametrize("name", CASES)
def test_a_report_keeps_to_the_schema(name: str) -> None:
    schema = report_schema()
    document = json.loads(evaluated(name)[1].model_dump_json())
    assert valid(document, schema, schema["$defs"])
    document["sections"]["subgroups"]["rows"][0]["value"]["value"] = "high"
    assert not valid(document, schema, schema["$defs"])


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_an_upgraded_report_keeps_to_the_schema(path: Path) -> None:
    schema = report_schema()
    document = json.loads(read_report(path).model_dump_json())
    assert valid(document, schema, schema["$defs"])
    document["colour"] = "red"
    assert not valid(document, schema, schema["$defs"])
