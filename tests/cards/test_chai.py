"""The XML has the elements of CHAI's Applied Model Card, all of them, in order, and says what the card says."""

import json
from xml.etree import ElementTree as ET

import pytest

from mil.cards.chai import NAMESPACE, chai
from mil.report.sections.operating_points import OperatingPoints
from mil.study.tool import Tool
from tests.report.figures.cases import CASES, evaluated

from .test_card import FACTS, manifest

METRIC = {
    "MetricGoal": None,
    "Results": {"MetricResult": {"Label": None, "ValueJson": None}},
    "Interpretation": None,
    "TestType": None,
    "TestingDataDescription": None,
    "ValidationProcessAndJustification": None,
}
LEAVES = dict.fromkeys
ELEMENTS = {
    "BasicInfo": LEAVES(["ModelName", "ModelDeveloper", "DeveloperContact"]),
    "ReleaseInfo": {
        **LEAVES(["ReleaseStage", "ReleaseDate", "ReleaseVersion", "GlobalAvailability"]),
        "EHRCompatibility": LEAVES(["EHR"]),
        "RegulatoryApproval": None,
    },
    "ModelSummary": {"Summary": None, "Keywords": LEAVES(["Keyword"])},
    "UsesAndDirections": LEAVES(
        [
            "IntendedUseAndWorkflow",
            "PrimaryIntendedUsers",
            "HowToUse",
            "TargetedPatientPopulation",
            "CautionedOutOfScopeSettings",
        ]
    ),
    "Warnings": LEAVES(["KnownRisksAndLimitations", "KnownBiasesOrEthicalConsiderations", "ClinicalRiskLevel"]),
    "TrustIngredients": {
        "AISystemFacts": LEAVES(
            [
                "OutcomesAndOutputs",
                "ModelType",
                "FoundationModels",
                "InputDataSource",
                "OutputAndInputDataTypes",
                "DevelopmentDataCharacterization",
                "BiasMitigationApproaches",
                "OngoingMaintenance",
                "Security",
                "Transparency",
            ]
        ),
        "TransparencyInformation": LEAVES(["FundingSource", "ThirdPartyInformation", "StakeholdersConsulted"]),
    },
    "KeyMetrics": {"UsefulnessUsabilityEfficacy": METRIC, "FairnessEquity": METRIC, "SafetyReliability": METRIC},
    "Resources": LEAVES(
        [
            "EvaluationReferences",
            "ClinicalTrial",
            "PeerReviewedPublications",
            "ReimbursementStatus",
            "PatientConsentOrDisclosure",
        ]
    ),
    "Bibliography": None,
}
REPEATED = {"Keyword", "MetricResult"}


def check(parent: ET.Element, expected: dict[str, object] | None) -> None:
    """Names, order and nesting below an element."""
    if expected is None:
        assert len(parent) == 0
        assert (parent.text or "").strip(), parent.tag
        return
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in parent]
    assert list(dict.fromkeys(names)) == list(expected)
    assert all(names.count(name) == 1 for name in names if name not in REPEATED)
    for name, child in zip(names, parent, strict=True):
        below = expected[name]
        check(child, below if isinstance(below, dict) else None)


@pytest.mark.parametrize("name", CASES)
def test_every_element_is_there_in_its_order_and_filled(name: str) -> None:
    evaluation, report = evaluated(name)
    root = ET.fromstring(chai(manifest(evaluation.endpoint), evaluation.endpoint, report))
    assert root.tag == f"{{{NAMESPACE}}}AppliedModelCard"
    check(root, ELEMENTS)


def test_its_numbers_are_the_reports() -> None:
    evaluation, report = evaluated("binary")
    root = ET.fromstring(chai(manifest(evaluation.endpoint), evaluation.endpoint, report))
    values = [json.loads(element.text or "") for element in root.iter(f"{{{NAMESPACE}}}ValueJson")]
    auroc = report.metrics["auroc"]
    assert {"value": auroc.value, "low": auroc.low, "high": auroc.high}.items() <= values[0].items()
    points = report.section(OperatingPoints)
    assert points is not None
    sensitivity = points.decisions[0].at_cuts[0].sensitivity
    assert any(value["value"] == sensitivity.value and value["counts"] == sensitivity.counts for value in values)
    summary = root.findtext(f".//{{{NAMESPACE}}}Summary") or ""
    assert FACTS["en"] in summary
    assert summary.startswith("SIMULATED DATA")


def test_hostile_words_are_text_and_the_same_arguments_give_the_same_bytes() -> None:
    evaluation, report = evaluated("multiclass")
    odd = manifest(evaluation.endpoint, title="<a>&\x00]]>")
    text = chai(odd, evaluation.endpoint, report)
    assert (ET.fromstring(text).findtext(f".//{{{NAMESPACE}}}ModelName") or "").startswith("<a>& ]]>")
    assert text == chai(odd, evaluation.endpoint, report)


def test_what_is_missing_says_so_as_the_framework_asks() -> None:
    evaluation, report = evaluated("regression")
    bare = manifest(evaluation.endpoint)
    keys = ("name", "version", "title", "question")
    tool = Tool.parse({key: value for key, value in bare.tool.plain().items() if key in keys})
    text = chai(bare.model_copy(update={"tool": tool}), evaluation.endpoint, report)
    root = ET.fromstring(text)
    assert (root.findtext(f".//{{{NAMESPACE}}}PrimaryIntendedUsers") or "").startswith("Not available: ")
    assert "<MetricResult>" in text
