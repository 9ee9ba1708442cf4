"""model_card.xml: the Applied Model Card of the Coalition for Health AI (CHAI), version 0.2.

Written from the element list of https://mc.chai.org/v0.2/schema.xsd: every element is present, in its order, filled or
`Not available: …`. The texts are those of the card.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from mil.cards import cohort_blocks, evidence, fairness, purpose, technical, trust
from mil.cards.card_facts import NOBODY_REPORTED, Facts
from mil.cards.content import Absent, CardBlock, Field, Reference, not_applicable, not_examined, not_stated
from mil.cards.external_validation import ExternalValidation, summary
from mil.cards.statements import CardStatements
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.page.words import named
from mil.report.schema import Estimate, Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.calibration import Calibration
from mil.report.sections.operating_point import CUT
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.subgroups import Subgroups

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
Node = Mapping[str, object]
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VALUES = {"value", "low", "high", "level", "method", "counts"}


def chai(
    manifest: Manifest,
    endpoint: Endpoint,
    report: Report,
    statements: CardStatements | None = None,
    external: Sequence[ExternalValidation] = (),
) -> str:
    """Return the document; the same arguments give the same bytes."""
    facts = Facts(manifest, report, endpoint, external=external, statements=statements or CardStatements())
    root = ET.Element("AppliedModelCard", xmlns=NAMESPACE)
    _fill(root, _card(facts))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _fill(parent: ET.Element, node: Node) -> None:
    """Add the elements of a node by name; for a list the element is repeated."""
    for name, content in node.items():
        for item in content if isinstance(content, list) else [content]:
            child = ET.SubElement(parent, name)
            if isinstance(item, Mapping):
                _fill(child, item)
            else:
                child.text = _text(item)


def _text(content: object) -> str:
    text = _NO_XML.sub(" ", str(content)).strip()
    return f"Not available: {text}" if isinstance(content, Absent) else text


def _card(facts: Facts) -> Node:
    tool, stage = facts.tool, f"{facts.banner}: {'demonstration' if facts.simulated else 'research'}"
    return {
        "BasicInfo": {
            "ModelName": f"{facts.text('title')} ({tool.name})",
            "ModelDeveloper": facts.stated("developers"),
            "DeveloperContact": _field(purpose.identity(facts), "Contact"),
        },
        "ReleaseInfo": {
            "ReleaseStage": stage,
            "ReleaseDate": _field(purpose.identity(facts), "Date"),
            "ReleaseVersion": tool.version,
            "GlobalAvailability": "Research use only, wherever the licence of the weights allows it",
            "EHRCompatibility": {"EHR": not_applicable("it is connected to no health record")},
            "RegulatoryApproval": evidence.POSTURE,
        },
        "ModelSummary": {
            "Summary": f"{facts.banner}. {_summary(facts)} {facts.main().text}",
            "Keywords": {"Keyword": purpose.tags(facts)},
        },
        "UsesAndDirections": _uses(facts),
        "Warnings": _warnings(facts),
        "TrustIngredients": {"AISystemFacts": _system(facts), "TransparencyInformation": _transparency(facts)},
        "KeyMetrics": _metrics(facts),
        "Resources": _resources(facts),
        "Bibliography": _field(evidence.reading(facts), "References"),
    }


def _uses(facts: Facts) -> Node:
    purposes = purpose.intended(facts)
    return {
        "IntendedUseAndWorkflow": f"{facts.text('intended_use')} {facts.text('pathway')}",
        "PrimaryIntendedUsers": facts.text("users"),
        "HowToUse": f"{_field(evidence.reproduction(facts), 'Use')}. {_all_fields(technical.results(facts))}",
        "TargetedPatientPopulation": f"{facts.text('organ')}; {facts.text('specimen')}; "
        f"{_field(purposes, 'Population')}",
        "CautionedOutOfScopeSettings": _all_fields(purpose.outside(facts)),
    }


def _warnings(facts: Facts) -> Node:
    return {
        "KnownRisksAndLimitations": _all_fields(trust.risk(facts)),
        "KnownBiasesOrEthicalConsiderations": _all_fields(trust.confounders(facts), trust.ethics(facts)),
        "ClinicalRiskLevel": _field(trust.risk(facts), "Clinical risk level"),
    }


def _system(facts: Facts) -> Node:
    return {
        "OutcomesAndOutputs": purpose.legend(facts),
        "ModelType": _field(technical.model(facts), "Aggregator"),
        "FoundationModels": _field(purpose.identity(facts), "Base model (encoder)"),
        "InputDataSource": facts.text("specimen"),
        "OutputAndInputDataTypes": _all_fields(technical.inputs(facts)),
        "DevelopmentDataCharacterization": _all_fields(cohort_blocks.data(facts), cohort_blocks.partition(facts)),
        "BiasMitigationApproaches": _field(fairness.subgroups(facts), "Mitigation"),
        "OngoingMaintenance": _all_fields(trust.monitoring(facts)),
        "Security": _all_fields(trust.security(facts)),
        "Transparency": "The card (README.md) and report.json in this folder, from which every number comes",
    }


def _transparency(facts: Facts) -> Node:
    ethics = trust.ethics(facts)
    return {
        "FundingSource": _field(ethics, "Funding"),
        "ThirdPartyInformation": facts.stated("third_parties"),
        "StakeholdersConsulted": _field(ethics, "Stakeholders consulted"),
    }


def _metrics(facts: Facts) -> Node:
    report = facts.all_folds
    useful = [(named(name), estimate) for name, estimate in report.metrics.items()]
    if (baseline := report.section(Baseline)) is not None:
        useful += [(f"{named(name)} minus that of mean pooling", gain) for name, gain in baseline.difference.items()]
    for validation in facts.external:
        useful += [
            (f"{named(name)}, external: {validation.title}", value) for name, value in validation.report.metrics.items()
        ]
    return {
        "UsefulnessUsabilityEfficacy": _metric(
            facts,
            "To separate patients better than a simple model does",
            useful,
            str(facts.verdict().text),
        ),
        "FairnessEquity": _metric(
            facts,
            "To do as well in every group of patients",
            list(_by_subgroup(report)),
            "Block 12 of the card has every group, small ones too" if report.metrics else not_examined(NOBODY_REPORTED),
        ),
        "SafetyReliability": _metric(
            facts,
            "To miss no more patients at the frozen cut than was asked, with probabilities that mean what they say",
            list(_safety(report)),
            "Blocks 10 and 11 of the card have all of these with their sources",
        ),
    }


def _metric(facts: Facts, goal: str, estimates: Sequence[tuple[str, Estimate]], interpretation: str) -> Node:
    results = [
        {"Label": f"{label}: {estimate.described}", "ValueJson": _json(estimate)} for label, estimate in estimates
    ]
    return {
        "MetricGoal": goal,
        "Results": {"MetricResult": results or [{"Label": not_examined("this report has none"), "ValueJson": "null"}]},
        "Interpretation": interpretation,
        "TestType": f"Internal validation; {_external_test(facts)}",
        "TestingDataDescription": facts.cohort,
        "ValidationProcessAndJustification": _all_fields(cohort_blocks.partition(facts)),
    }


def _external_test(facts: Facts) -> str:
    return f"external validation on {summary(facts)}" if facts.external else summary(facts)


def _by_subgroup(report: Report) -> Iterator[tuple[str, Estimate]]:
    section = report.section(Subgroups)
    for row in () if section is None else section.rows:
        if row.variable != "all":
            yield f"{named(row.metric)}, {row.variable} {row.level}", row.value


def _safety(report: Report) -> Iterator[tuple[str, Estimate]]:
    points = report.section(OperatingPoints)
    for point in () if points is None else points.decisions:
        for name in ("undecided", "accuracy", "abstained"):
            if (estimate := getattr(point, name)) is not None:
                yield f"{named(name)}, {point.name}", estimate
        for at in point.at_cuts:
            of_two = "" if at.name == CUT else f" ({at.name})"
            for name, estimate in at.estimates():
                yield f"{named(name)}{of_two}, {point.name}", estimate
    calibration = report.section(Calibration)
    for question in () if calibration is None else calibration.questions:
        if question.slope is not None:
            yield f"Calibration slope, {question.name}", question.slope


def _resources(facts: Facts) -> Node:
    level = evidence.level(facts)
    return {
        "EvaluationReferences": _field(level, "Published results of comparable tools, not of this one"),
        "ClinicalTrial": facts.stated("registration"),
        "PeerReviewedPublications": facts.stated("publications"),
        "ReimbursementStatus": not_applicable("not a product"),
        "PatientConsentOrDisclosure": _field(cohort_blocks.data(facts), "Legal basis and consent"),
    }


def _json(estimate: Estimate) -> str:
    return json.dumps(estimate.model_dump(mode="json", include=_VALUES), ensure_ascii=False, allow_nan=False)


def _summary(facts: Facts) -> str:
    return facts.tool.summary.en or facts.text("question")


def _all_fields(*blocks: CardBlock) -> str:
    return " ".join(f"{field.name}: {_flat(field)}." for block in blocks for field in block.stated) or not_stated()


def _field(block: CardBlock, name: str) -> str:
    return next(_flat(field) for field in block.fields if field.name == name)


def _flat(field: Field) -> str:
    if isinstance(field.text, str):
        return field.text
    return "; ".join(f"{line.text} ({line.address})" if isinstance(line, Reference) else line for line in field.text)
