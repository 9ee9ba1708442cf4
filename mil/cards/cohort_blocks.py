"""Blocks 6 to 8: endpoint and ground truth, data, and the split."""

from collections.abc import Iterator

from mil.cards.card_facts import MANIFEST, Facts, missing, short_digest
from mil.cards.content import Absent, CardBlock, Field, Subsection, not_applicable, not_examined, not_stated
from mil.cards.simulated_columns import clinical_columns
from mil.cards.tier import by_site
from mil.manifest import SimulationRecord
from mil.report.page.words import below
from mil.report.schema import Table
from mil.report.sections.patient_flow import PatientFlow
from mil.report.sections.patient_table import PatientTable
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats.estimate import format_counts

DESIGNS = {
    "HoldOut": "a random fraction of the patients of each class was held back for the report",
    "KFold": "cross-validation: each patient was held back once for the report",
    "Nested": "nested cross-validation",
    "Fixed": "roles that came with the cohort",
    "SitePreserved": "cross-validation by site: no site is both trained on and reported",
    "LeaveOneSiteOut": "each site was held back in turn",
    "AllTrain": "all patients trained; nobody was held back for a report",
}
"""Ways to split patients, in words."""
DRAWN = "the labels were drawn by a computer"
NOBODY = "no patient exists"


def truth(facts: Facts) -> CardBlock:
    """The endpoint."""
    columns = ", ".join(facts.endpoint.columns) if facts.endpoint else ""
    simulation = facts.manifest.data.simulation
    noise = None if simulation is None else simulation.label_noise
    flipped = f"share of labels that were flipped: {noise:g}" if noise is not None else None
    fields = [
        Field("Definition", facts.text("question")),
        Field("Columns of the cohort's table", columns, f"{MANIFEST}endpoint.options"),
        Field("Classes", _classes(facts), f"{MANIFEST}endpoint.options"),
        Field("Assay and its cut-off", facts.text("ground_truth")),
        Field("Who read it, blinded or not", facts.stated("readers", DRAWN)),
        Field("Agreement between readers", facts.stated("reader_agreement", DRAWN)),
        Field(
            "Label noise",
            flipped or not_stated(),
            f"{MANIFEST}data.simulation.label_noise" if noise is not None else "",
        ),
        Field("Missing labels", "patients without any label are left out; each of several labels may be missing"),
        *_times(facts),
    ]
    return CardBlock(6, "Endpoint and ground truth", fields)


def data(facts: Facts) -> CardBlock:
    """The cohort."""
    simulation = facts.manifest.data.simulation
    source = f"{MANIFEST}data.simulation"
    fields = [
        Field(
            "Source",
            "simulated: features were drawn, no slide exists" if simulation else "the training site's own cohort",
        ),
        Field(
            "What was scaled down",
            facts.text("simulated_note") if simulation else not_applicable("nothing is simulated"),
        ),
        Field("Public cohorts that it could be trained on", facts.lines_or_gap("public_cohorts")),
        Field(
            "Centres and country",
            _simulated(simulation, "sites", "simulated sites, in no country")
            if simulation
            else facts.stated("centres"),
            source if simulation else "",
        ),
        Field("Version of the data", facts.stated("data_version")),
        Field("Dates", facts.stated("period", NOBODY)),
        Field("Inclusion and exclusion", _stated_or(facts, "inclusion", "every simulated patient is included")),
        Field(
            "Slides", _simulated(simulation, "slides", "slides per patient on average"), source if simulation else ""
        ),
        Field("Tiles", _simulated(simulation, "tiles", "tiles per slide, median"), source if simulation else ""),
        *_contrast(simulation, source),
        Field("Scanners and stain", _stated_or(facts, "scanners", "names of scanners, drawn; no stain")),
        Field("Treatments", facts.stated("treatments", NOBODY)),
        Field(
            "Demographics",
            _stated_or(facts, "demographics", "clinical variables were drawn; counts of their groups in block 12"),
        ),
        Field("Legal basis and consent", facts.stated("consent", NOBODY)),
        Field("How many patients were needed", facts.stated("sample_size")),
        Field("De-identification", facts.choose(f"not needed: {NOBODY}", "this folder holds no data of patients")),
        Field("Where the data stayed", facts.choose("they can be simulated again anywhere", "at the training site")),
        Field("Training against report patients", "the same cohort, divided by the split of block 8"),
        Field(
            "Digest of the cohort's table",
            short_digest(facts.manifest.data.cohort_sha256),
            f"{MANIFEST}data.cohort_sha256",
        ),
    ]
    clinical = None if simulation is None else simulation.clinical
    drawn = [] if clinical is None else [clinical_columns(clinical)]
    subsections = [Subsection("Patients by role", tables=[_roles(facts)]), *_patients(facts), *drawn]
    return CardBlock(7, "Data", fields, subsections)


def _patients(facts: Facts) -> Iterator[Subsection]:
    """Yield the flow of patients and Table 1, as far as the report has them."""
    flow, table = facts.all_folds.section(PatientFlow), facts.all_folds.section(PatientTable)
    if flow is not None:
        yield Subsection(flow.title, [flow.explanation], list(flow.tables()))
    if table is not None:
        yield Subsection(table.title, [table.explanation], [table.table()])


def partition(facts: Facts) -> CardBlock:
    """The split."""
    split, looks = facts.manifest.data.split, facts.report.looks
    how = ", ".join(f"{key} {value}" for key, value in split.strategy.items() if key != "_target_")
    design = DESIGNS.get(split.name, split.name) + (f" ({how})" if how else "")
    encoder = "; ".join(facts.manifest.encoder.pretrained_on)
    overlap = f"the encoder has seen: {encoder}" if encoder else "its entry names no pre-training data"
    fields = [
        Field("Unit", "the patient: all slides of a patient have one role"),
        Field("Design", design, f"{MANIFEST}data.split.strategy"),
        Field("Sites kept apart", "yes" if by_site(facts.manifest) else "no: a site may be on both sides"),
        Field("Fold of these weights", str(split.fold), f"{MANIFEST}data.split.fold"),
        Field("Digest of the split", short_digest(split.sha256), f"{MANIFEST}data.split.sha256"),
        Field(
            "Overlap with the encoder's training",
            facts.choose("none: the features were drawn, no encoder was used", overlap),
        ),
        Field("Looks at the report patients", _looks(looks), "report.json: looks" if looks is not None else ""),
        Field("What each role may set", "train: weights; select: epoch, cuts, calibration; report: nothing"),
    ]
    return CardBlock(8, "Partition", fields)


def _classes(facts: Facts) -> str:
    classes = facts.manifest.endpoint.options.get("classes")
    return ", ".join(map(str, classes)) if classes else not_applicable("the endpoint has no classes")


def _times(facts: Facts) -> list[Field]:
    survival = None if facts.endpoint is None else facts.endpoint.survival
    if survival is None:
        return [Field("Time, events and censoring", not_applicable("the endpoint is not a time to an event"))]
    horizons = ", ".join(f"{name} ({time:g} {survival.unit})" for name, time in survival.horizons.items())
    causes = ", ".join(survival.causes[1:])
    section = facts.all_folds.section(TimeToEvent)
    follow_up = None if section is None else section.median_follow_up
    median = f"{follow_up} {survival.unit}, {follow_up.population}" if follow_up else missing(TimeToEvent)
    key = below(facts.source, "sections", TimeToEvent.key, "median_follow_up") if follow_up else ""
    return [
        Field("Time zero", facts.tool.time_zero or f"as the assay says: {facts.text('ground_truth')}"),
        Field("Event", survival.event_column, f"{MANIFEST}endpoint.options"),
        Field("Competing events", causes or not_applicable("the endpoint has one kind of event")),
        Field("Censoring", "at the last contact, right-censored"),
        Field("Unit", survival.unit),
        Field(
            "Horizons",
            horizons or not_applicable("the endpoint states none"),
            f"{MANIFEST}endpoint.options.horizons" if horizons else "",
        ),
        Field("Median follow-up", median, key),
    ]


def _contrast(simulation: SimulationRecord | None, source: str) -> list[Field]:
    """Say how well the simulated encoder separates tissues; older checkpoints do not record it."""
    if simulation is None or simulation.contrast is None:
        return []
    text = "the simulated encoder mistakes some tiles for another tissue"
    if simulation.contrast != 1:
        text = f"the simulated encoder separates tissues {simulation.contrast:g} times as far as usual"
    return [Field("How clear the features are", text, f"{source}.contrast")]


def _simulated(simulation: SimulationRecord | None, name: str, unit: str) -> str:
    value = None if simulation is None else getattr(simulation, name)
    return not_stated() if value is None else f"{value} {unit}"


def _stated_or(facts: Facts, key: str, simulated: str) -> str:
    """Return what people state; if they state nothing, what is so in every simulated cohort."""
    stated = facts.stated(key)
    return simulated if facts.simulated and isinstance(stated, Absent) else stated


def _roles(facts: Facts) -> Table:
    rows = [
        (role, format_counts(counts), f"{MANIFEST}data.patients.{role}")
        for role, counts in facts.manifest.data.patients.items()
    ]
    return Table(columns=("Role", "Patients", "Source"), rows=tuple(rows))


def _looks(looks: int | None) -> str:
    return not_examined("this report does not count them") if looks is None else str(looks)
