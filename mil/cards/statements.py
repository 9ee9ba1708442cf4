"""card.yaml: what people state about a tool, which no program can know."""

import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from mil.errors import ConfigError
from mil.yaml_files import read_yaml

STATEMENTS = "card.yaml"
ZOO_STATEMENTS = Path(__file__).with_name("stated")
"""Folder of the statements on the zoo's simulated tools, a file each."""
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class CardStatements(BaseModel):
    """What people state about a release. What they leave out is listed in the card as not stated, never as "no".

    Attributes:
        date: Day of the release or of these statements.
        data_version: Version of the cohort, so that two releases on different data can be told apart.
        developers: Who made the tool.
        contact: Where to ask; an address that is read.
        incidents: Where to report a harm or a near miss.
        data_licence: Under which licence or agreement the data were used.
        readers: Who established the truth, their qualification, and whether they were blinded.
        reader_agreement: How well readers agreed.
        centres: Centres and countries of the patients.
        period: When the patients were treated or the slides made.
        inclusion: Who was included and excluded.
        scanners: Scanners and stains of the cohort.
        treatments: Treatments of the cohort.
        demographics: Age, sex, ancestry, stage of the cohort.
        consent: Legal basis, consent or non-opposition.
        sample_size: How the number of patients was chosen.
        tuning: Which settings were searched.
        between_scanners: Agreement on the same slides between scanners.
        rescans: Agreement on slides that were scanned again.
        other_seeds: Results of training again with other seeds.
        fewer_tiles: Results with fewer tiles per slide.
        stain: Results on other stains or laboratories.
        other_blocks: Agreement between blocks of a tumour.
        tumour_share: Results by share of tumour on the slide.
        missing_variables: Results where clinical variables are missing.
        reviewed_by: Who looked at tiles and wrong results, how many, and blinded or not.
        sanity_checks: What was checked about explanations.
        strata: Results within strata of known proxies of the truth.
        permuted_labels: Results of training on permuted labels.
        mitigation: What was done against unequal results in subgroups.
        user_training: How users are trained.
        setting: Where it was studied in use.
        severity: Harm of wrong results, by a risk assessment.
        expiry: Until when the release may be used.
        deployed: Where it is in use.
        ethics_approval: Approval, or why none is needed.
        involvement: How patients and the public were involved.
        stakeholders: Who else was consulted.
        funding: Who paid.
        conflicts: Conflicts of interest.
        protocol: Where the protocol can be read.
        registration: Where the study is registered.
        prospective: Prospective studies of this release.
        publications: Publications on this release.
        third_parties: Who else has examined it.
        next_steps: What is planned next.
        evidence: Studies and documents on this release, one line each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: datetime.date | None = None
    data_version: Sentence | None = None
    developers: Sentence | None = None
    contact: Sentence | None = None
    incidents: Sentence | None = None
    data_licence: Sentence | None = None
    readers: Sentence | None = None
    reader_agreement: Sentence | None = None
    centres: Sentence | None = None
    period: Sentence | None = None
    inclusion: Sentence | None = None
    scanners: Sentence | None = None
    treatments: Sentence | None = None
    demographics: Sentence | None = None
    consent: Sentence | None = None
    sample_size: Sentence | None = None
    tuning: Sentence | None = None
    between_scanners: Sentence | None = None
    rescans: Sentence | None = None
    other_seeds: Sentence | None = None
    fewer_tiles: Sentence | None = None
    stain: Sentence | None = None
    other_blocks: Sentence | None = None
    tumour_share: Sentence | None = None
    missing_variables: Sentence | None = None
    reviewed_by: Sentence | None = None
    sanity_checks: Sentence | None = None
    strata: Sentence | None = None
    permuted_labels: Sentence | None = None
    mitigation: Sentence | None = None
    user_training: Sentence | None = None
    setting: Sentence | None = None
    severity: Sentence | None = None
    expiry: Sentence | None = None
    deployed: Sentence | None = None
    ethics_approval: Sentence | None = None
    involvement: Sentence | None = None
    stakeholders: Sentence | None = None
    funding: Sentence | None = None
    conflicts: Sentence | None = None
    protocol: Sentence | None = None
    registration: Sentence | None = None
    prospective: Sentence | None = None
    publications: Sentence | None = None
    third_parties: Sentence | None = None
    next_steps: Sentence | None = None
    evidence: tuple[Sentence, ...] = ()


def read_statements(folder: Path) -> CardStatements:
    """Return the statements of `card.yaml` in a folder; none if there is no such file.

    Raises:
        ConfigError: if the file is not a mapping of the keys of `CardStatements` to texts.
    """
    path = folder / STATEMENTS
    return _parsed(path) if path.is_file() else CardStatements()


def zoo_statements(tool: str) -> str | None:
    """Return the text of the statements on one of the zoo's simulated tools; None for other tools.

    They hold for the simulated cohort of the zoo alone, not for another cohort that trains the same tool.
    """
    path = ZOO_STATEMENTS / f"{tool}.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _parsed(path: Path) -> CardStatements:
    stated = read_yaml(path)
    try:
        return CardStatements.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "content"
        expected = f"expected the keys {', '.join(CardStatements.model_fields)}"
        hint = expected if first["type"] == "extra_forbidden" else first["msg"]
        raise ConfigError(f"{path}: {key}: {hint}") from None
