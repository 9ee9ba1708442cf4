"""The JSON Schema of report.json, published as docs/report.schema.json.

python -m mil.report.json_schema > docs/report.schema.json
"""

import json
import sys
from typing import Any

from pydantic.json_schema import models_json_schema

from mil.report.schema import Model, Report, section_classes

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of a report, with every section under its key."""
    sections = section_classes()
    models: list[type[Model]] = [Report, *sections]
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], title="Report of mil, schema 3"
    )
    report = references[Report, "validation"]
    name = str(report["$ref"]).rpartition("/")[2]
    definitions["$defs"][name]["properties"]["sections"] = {
        "type": "object",
        "description": "by key; a section that does not apply is absent",
        "properties": {section.key: references[section, "validation"] for section in sections},
        "additionalProperties": False,
    }
    definitions["$defs"].pop("Section", None)
    return {"$schema": DIALECT, **definitions, **report}


def schema_text() -> str:
    """Return the schema as it is published."""
    return json.dumps(report_schema(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
