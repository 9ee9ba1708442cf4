"""Blocks 6 to 8: what is true, who it is known of, and who was used for what."""

from typing import Any

from mil.cards.card_facts import MANIFEST, Facts, shortened
from mil.cards.content import Block, Field, Part, Table, absent
from mil.cards.measured import below, interval, population
from mil.cards.tier import by_site

DESIGNS = {
    "HoldOut": "one part of the patients was held back for the report, at random within classes",
    "KFold": "cross-validation: each patient was held back once for the report",
    "Nested": "nested cross-validation",
    "Fixed": "roles that were given with the cohort",
    "SitePreserved": "cross-validation by site: no site is both trained on and reported",
    "LeaveOneSiteOut": "each site was held back in turn",
    "AllTrain": "all patients trained; nobody was held back for a report",
}
"""Ways to divide patients, in words."""
DRAWN = "the labels were drawn by a computer"
UNTOLD = "the training site has not said it"


def truth(facts: Facts) -> Block:
    """The endpoint."""
    columns = ", ".join(facts.endpoint.columns) if facts.endpoint else ""
    noise = (facts.manifest.data.get("simulation") or {}).get("label_noise")
    drawn = (
        f"share of labels that were flipped: {noise:g}" if noise is not None else facts.either("not recorded", UNTOLD)
    )
    fields = [
        Field("Definition", facts.said("question")),
        Field("Columns of the cohort's table", columns, f"{MANIFEST}endpoint.options"),
        Field("Classes", _classes(facts), f"{MANIFEST}endpoint.options"),
        Field("Assay and its cut-off", facts.said("ground_truth")),
        Field("Who read it, blinded or not", facts.either(DRAWN, UNTOLD)),
        Field("Agreement between readers", facts.either(DRAWN, UNTOLD)),
        Field("Label noise", drawn, f"{MANIFEST}data.simulation.label_noise" if noise is not None else ""),
        Field("Missing labels", "patients without a label are in no role; of several labels each may be missing"),
        *_times(facts),
    ]
    return Block(6, "Endpoint and ground truth", fields)


def data(facts: Facts) -> Block:
    """The cohort."""
    drawn = facts.manifest.data.get("simulation") or {}
    source = f"{MANIFEST}data.simulation"
    nobody = "no patient exists"
    fields = [
        Field(
            "Source", "simulated: features were drawn, no slide exists" if drawn else "the training site's own cohort"
        ),
        Field("What was scaled down", facts.said("simulated_note") if drawn else absent("nothing is simulated")),
        Field("Public cohorts that it could be trained on", facts.items("public_cohorts")),
        Field("Centres and country", _drawn(drawn, "sites", "simulated sites, in no country"), source if drawn else ""),
        Field("Dates", facts.either(nobody, UNTOLD)),
        Field("Inclusion and exclusion", "every simulated patient is included" if drawn else absent(UNTOLD)),
        Field("Slides", _drawn(drawn, "slides", "slides a patient on average"), source if drawn else ""),
        Field("Tiles", _drawn(drawn, "tiles", "tiles a slide, median"), source if drawn else ""),
        *_contrast(drawn, source),
        Field("Scanners and stain", facts.told("names of scanners, drawn; no stain", absent(UNTOLD))),
        Field("Treatments", facts.either(nobody, UNTOLD)),
        Field("Demographics", facts.told("age, sex and stage were drawn; counts in block 12", absent(UNTOLD))),
        Field("Legal basis and consent", facts.either(nobody, UNTOLD)),
        Field("De-identification", facts.told(f"not needed: {nobody}", "this folder holds no patient's data")),
        Field(
            "Where the data stayed", facts.told("they are drawn anew wherever they are needed", "at the training site")
        ),
        Field("Training against report patients", "the same cohort, divided by the split of block 8"),
        Field(
            "Digest of the cohort's table",
            shortened(facts.manifest.data["cohort_sha256"]),
            f"{MANIFEST}data.cohort_sha256",
        ),
    ]
    return Block(7, "Data", fields, [Part("Patients by role", tables=[_roles(facts)])])


def partition(facts: Facts) -> Block:
    """The split."""
    split, looks = facts.manifest.data["split"], facts.report.get("looks")
    strategy = split["strategy"]
    how = ", ".join(f"{key} {value}" for key, value in strategy.items() if key != "_target_")
    name = str(strategy.get("_target_", "given")).rpartition(".")[2]
    encoder = "; ".join(facts.manifest.encoder.get("pretrained_on") or [])
    overlap = f"the encoder has seen: {encoder}" if encoder else "its entry names no pre-training data"
    fields = [
        Field("Unit", "the patient: all slides of one have one role"),
        Field("Design", f"{DESIGNS.get(name, name)}{f' ({how})' if how else ''}", f"{MANIFEST}data.split.strategy"),
        Field("Sites kept apart", "yes" if by_site(facts.manifest) else "no: a site may be on both sides"),
        Field("Fold of these weights", str(split["fold"]), f"{MANIFEST}data.split.fold"),
        Field("Digest of the split", shortened(split["sha256"]), f"{MANIFEST}data.split.sha256"),
        Field(
            "Overlap with the encoder's training",
            facts.told("none: the features were drawn, no encoder was used", overlap),
        ),
        Field("Looks at the report patients", _looks(looks), "report.json: looks" if looks is not None else ""),
        Field("What each role may set", "train: weights; select: epoch, cuts, calibration; report: nothing"),
    ]
    return Block(8, "Partition", fields)


def _classes(facts: Facts) -> str:
    known = facts.manifest.endpoint.options.get("classes")
    return ", ".join(map(str, known)) if known else absent("the endpoint has no classes of its own")


def _times(facts: Facts) -> list[Field]:
    survival = None if facts.endpoint is None else facts.endpoint.survival
    if survival is None:
        return [Field("Time, events and censoring", absent("the endpoint is no time to an event"))]
    horizons = ", ".join(f"{name} ({time:g} {survival.unit})" for name, time in survival.horizons.items())
    causes = ", ".join(survival.causes[1:])
    follow = (facts.whole.get("survival") or {}).get("median_follow_up")
    key = below(below(facts.source, "survival"), "median_follow_up")
    told = f"{interval(follow)} {survival.unit}, {population(follow)}" if follow else facts.missing("survival")
    return [
        Field("Time zero", facts.said("time_zero", "see the assay above; the tool has no field of its own for it")),
        Field("Event", survival.event_column, f"{MANIFEST}endpoint.options"),
        Field("Competing events", causes or absent("the endpoint has one kind of event")),
        Field("Censoring", "at the last contact, right-censored"),
        Field("Unit", survival.unit),
        Field("Horizons", horizons or absent("the endpoint states none"), f"{MANIFEST}endpoint.options.horizons"),
        Field("Median follow-up", told, key if follow else ""),
    ]


def _contrast(drawn: dict[str, Any], source: str) -> list[Field]:
    """How clearly the simulated encoder sees; nothing of real data, or of checkpoints older than the question."""
    if "contrast" not in drawn:
        return []
    seen = "the simulated encoder takes some tiles for another tissue"
    if (contrast := drawn["contrast"]) != 1:
        seen = f"the simulated encoder holds tissues {contrast:g} times as far apart as usual"
    return [Field("How clear the features are", seen, f"{source}.contrast")]


def _drawn(drawn: dict[str, Any], key: str, words: str) -> str:
    return f"{drawn[key]} {words}" if key in drawn else absent(UNTOLD)


def _roles(facts: Facts) -> Table:
    rows = [
        (role, population({"counts": amounts}), f"{MANIFEST}data.patients.{role}")
        for role, amounts in facts.manifest.data["patients"].items()
    ]
    return Table(("Role", "Patients", "Source"), rows)


def _looks(looks: Any) -> str:
    return absent("they are counted in run folders, and this report has no count") if looks is None else str(looks)
