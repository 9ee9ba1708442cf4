"""model_card.xml: the Applied Model Card of the Coalition for Health AI (CHAI), version 0.2.

Written from the element list of https://mc.chai.org/v0.2/schema.xsd: every element is there, in its order, filled or
`Not available: …`. The texts are those of the card beside it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from mil.cards import Facts, cohort_blocks, evidence, fairness, purpose, technical, trust
from mil.cards.content import ABSENT, CardBlock, Field, Reference, absent
from mil.cards.measured import interval, population
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.page.words import named

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
Node = Mapping[str, Any]
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VALUES = ("value", "low", "high", "level", "method", "counts", "n")


def chai(manifest: Manifest, endpoint: Endpoint, report: Mapping[str, Any]) -> str:
    """The document: of the same arguments the same bytes."""
    facts = Facts(manifest, report, endpoint)
    root = ET.Element("AppliedModelCard", xmlns=NAMESPACE)
    _fill(root, _card(facts))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _fill(parent: ET.Element, node: Node) -> None:
    """Elements by name; a list repeats its element."""
    for name, found in node.items():
        for one in found if isinstance(found, list) else [found]:
            child = ET.SubElement(parent, name)
            if isinstance(one, Mapping):
                _fill(child, one)
            else:
                child.text = _text(one)


def _text(found: object) -> str:
    text = _NO_XML.sub(" ", str(found)).strip()
    return f"Not{text.removeprefix(ABSENT[:3])}" if text.startswith(ABSENT) else text


def _card(facts: Facts) -> Node:
    tool, stage = facts.tool, f"{facts.banner}: {'demonstration' if facts.simulated else 'research'}"
    return {
        "BasicInfo": {
            "ModelName": f"{facts.text('title')} ({tool['name']})",
            "ModelDeveloper": "The mil zoo developers",
            "DeveloperContact": _said(purpose.identity(facts), "Contact"),
        },
        "ReleaseInfo": {
            "ReleaseStage": stage,
            "ReleaseDate": _said(purpose.identity(facts), "Date"),
            "ReleaseVersion": tool["version"],
            "GlobalAvailability": "Research use only, wherever the licence of the weights allows it",
            "EHRCompatibility": {"EHR": absent("it is connected to no health record")},
            "RegulatoryApproval": evidence.POSTURE,
        },
        "ModelSummary": {
            "Summary": f"{facts.banner}. {_line(facts)} {facts.main().text}",
            "Keywords": {"Keyword": purpose.tags(facts)},
        },
        "UsesAndDirections": _uses(facts),
        "Warnings": _warnings(facts),
        "TrustIngredients": {"AISystemFacts": _system(facts), "TransparencyInformation": _transparency(facts)},
        "KeyMetrics": _metrics(facts),
        "Resources": _resources(facts),
        "Bibliography": _said(evidence.reading(facts), "References"),
    }


def _uses(facts: Facts) -> Node:
    purposes = purpose.intended(facts)
    return {
        "IntendedUseAndWorkflow": f"{facts.text('intended_use')} {facts.text('pathway', 'no pathway is named')}",
        "PrimaryIntendedUsers": facts.text("users"),
        "HowToUse": f"{_said(evidence.reproduction(facts), 'Use')}. {_all(technical.results(facts))}",
        "TargetedPatientPopulation": f"{facts.text('organ')}; {facts.text('specimen')}; "
        f"{_said(purposes, 'Population')}",
        "CautionedOutOfScopeSettings": _all(purpose.outside(facts)),
    }


def _warnings(facts: Facts) -> Node:
    return {
        "KnownRisksAndLimitations": _all(trust.risk(facts)),
        "KnownBiasesOrEthicalConsiderations": f"{_all(trust.confounders(facts))} {_all(trust.ethics(facts))}",
        "ClinicalRiskLevel": _said(trust.risk(facts), "Clinical risk level"),
    }


def _system(facts: Facts) -> Node:
    return {
        "OutcomesAndOutputs": purpose.legend(facts),
        "ModelType": _said(technical.model(facts), "Aggregator"),
        "FoundationModels": _said(purpose.identity(facts), "Base model (encoder)"),
        "InputDataSource": facts.text("specimen"),
        "OutputAndInputDataTypes": _all(technical.inputs(facts)),
        "DevelopmentDataCharacterization": f"{_all(cohort_blocks.data(facts))} {_all(cohort_blocks.partition(facts))}",
        "BiasMitigationApproaches": _said(fairness.subgroups(facts), "Mitigation"),
        "OngoingMaintenance": _all(trust.monitoring(facts)),
        "Security": _all(trust.security(facts)),
        "Transparency": "The card, README.md beside this file, and report.json, which every number comes from",
    }


def _transparency(facts: Facts) -> Node:
    ethics = trust.ethics(facts)
    return {
        "FundingSource": _said(ethics, "Funding"),
        "ThirdPartyInformation": absent("nobody else has examined it"),
        "StakeholdersConsulted": _said(ethics, "Stakeholders consulted"),
    }


def _metrics(facts: Facts) -> Node:
    main = None if facts.metric is None else facts.all_folds["metrics"][facts.metric]
    baseline = (facts.all_folds.get("baseline") or {}).get("difference") or {}
    useful = [(f"{named(name)}", found) for name, found in facts.all_folds["metrics"].items()]
    useful += [(f"{named(name)} minus that of mean pooling", found) for name, found in baseline.items()]
    return {
        "UsefulnessUsabilityEfficacy": _metric(
            facts,
            "To tell patients apart better than a simple model does",
            useful,
            str(facts.verdict().text),
        ),
        "FairnessEquity": _metric(
            facts,
            "To do as well in every group of patients",
            list(_fair(facts)),
            absent("nobody was reported") if main is None else "Block 12 of the card has every group, small ones too",
        ),
        "SafetyReliability": _metric(
            facts,
            "To miss no more patients at the frozen cut than was asked, with probabilities that mean what they say",
            list(_safe(facts)),
            "Blocks 10 and 11 of the card have all of these with their sources",
        ),
    }


def _metric(facts: Facts, goal: str, found: Sequence[tuple[str, Mapping[str, Any]]], means: str) -> Node:
    results = [
        {"Label": f"{label}: {interval(one)}, {population(one)}", "ValueJson": _json(one)} for label, one in found
    ]
    return {
        "MetricGoal": goal,
        "Results": {"MetricResult": results or [{"Label": absent("this report has none"), "ValueJson": "null"}]},
        "Interpretation": means,
        "TestType": "Internal validation; no external validation",
        "TestingDataDescription": facts.cohort,
        "ValidationProcessAndJustification": _all(cohort_blocks.partition(facts)),
    }


def _fair(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for row in (facts.all_folds.get("subgroups") or {}).get("rows", ()):
        if row["variable"] != "all":
            yield f"{named(row['metric'])}, {row['variable']} {row['level']}", row["value"]


def _safe(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in (facts.all_folds.get("operating_points") or {}).get("decisions", ()):
        for key in ("sensitivity", "specificity", "ppv", "npv", "accuracy", "abstained"):
            if key in one:
                yield f"{named(key)}, {one['name']}", one[key]
    for one in (facts.all_folds.get("calibration") or {}).get("questions", ()):
        if "slope" in one:
            yield f"Calibration slope, {one['name']}", one["slope"]


def _resources(facts: Facts) -> Node:
    level = evidence.level(facts)
    return {
        "EvaluationReferences": _said(level, "Published results of comparable tools, not of this one"),
        "ClinicalTrial": absent("none was registered or done"),
        "PeerReviewedPublications": absent("none is about this tool"),
        "ReimbursementStatus": absent("not a product"),
        "PatientConsentOrDisclosure": _said(cohort_blocks.data(facts), "Legal basis and consent"),
    }


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps({key: found[key] for key in _VALUES if key in found}, ensure_ascii=False, allow_nan=False)


def _line(facts: Facts) -> str:
    return str((facts.tool.get("facts") or {}).get("en") or facts.text("question"))


def _all(block: CardBlock) -> str:
    return " ".join(f"{field.name}: {_flat(field)}." for field in block.fields)


def _said(block: CardBlock, name: str) -> str:
    return next(_flat(field) for field in block.fields if field.name == name)


def _flat(field: Field) -> str:
    if isinstance(field.text, str):
        return field.text
    return "; ".join(f"{one.text} ({one.address})" if isinstance(one, Reference) else one for one in field.text)
