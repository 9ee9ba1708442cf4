"""Manifests of every schema version are read with their original meaning."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mil.manifest import parsed

STORED = Path(__file__).parent / "zoo" / "released" / "schema_1"


def test_cut_of_schema_1_becomes_a_decision() -> None:
    before = json.loads((STORED / "msi-crc" / "manifest.json").read_text())
    manifest = parsed(json.dumps(before).encode())
    (decision,) = manifest.fitted.decisions
    assert decision.cuts == (before["fitted"]["threshold"],)
    assert (decision.calls, decision.columns, decision.on) == (("MSS", "MSI-H"), ("p_MSI-H",), "select")
    assert decision.n == before["data"]["patients"]["select"]["n"]
    assert manifest.schema_version == 3
    assert {key: value for key, value in before.items() if key not in ("fitted", "schema_version")}.keys() <= set(
        manifest.model_dump()
    )


def test_schema_1_manifest_without_a_cut_is_read() -> None:
    before = json.loads((STORED / "surv-crc" / "manifest.json").read_text())
    manifest = parsed(json.dumps(before).encode())
    assert manifest.fitted.endpoint == before["fitted"]["endpoint"]
    assert manifest.fitted.decisions == ()


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"schema_version": 1}', b'{"schema_version": 4}'])
def test_invalid_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ValidationError):
        parsed(content)


def test_tool_is_written_as_stated() -> None:
    stated = json.loads((STORED / "msi-crc" / "manifest.json").read_text())["tool"]
    stated |= {"evidence": {"class": "B", "tier": 2}, "facts": {"en": "Finds."}, "of_ones_own": [1]}
    before = json.loads((STORED / "msi-crc" / "manifest.json").read_text()) | {"tool": stated}
    written = parsed(json.dumps(before).encode()).model_dump_json()
    assert json.loads(written)["tool"] == stated
    assert parsed(written.encode()).tool == parsed(json.dumps(before).encode()).tool


def test_values_that_are_not_json_are_refused() -> None:
    with pytest.raises(ValueError, match=r"EOF|expected"):
        parsed(b'{"schema_version": ')
