"""Blocks 13 to 20: what may go wrong, who supervises the tool, security, ethics."""

from mil.cards.card_facts import Facts, missing
from mil.cards.cohort_blocks import NOBODY
from mil.cards.content import CardBlock, Field, Subsection, not_applicable, not_examined
from mil.cards.external_validation import NONE
from mil.cards.section_parts import endpoint_reports, estimates_table
from mil.cards.technical import TILES
from mil.report.sections.site_effects import Sites

_BY_SITE = (
    "The metric within each site, and how well the site can be predicted from score, label or both; chance is one "
    "divided by the number of sites."
)


def robustness(facts: Facts) -> CardBlock:
    """Robustness to other scanners, stains and tiles."""
    never_scanned = "simulated slides were never scanned"
    fields = [
        Field("Between scanners", facts.stated("between_scanners", never_scanned)),
        Field("Scanned again", facts.stated("rescans", never_scanned)),
        Field("Fewer tiles of a slide", facts.stated("fewer_tiles")),
        Field("Other seeds", facts.stated("other_seeds")),
        Field("Stain", facts.stated("stain", "simulated slides have no stain")),
        Field("Another block of the tumour", facts.stated("other_blocks", "simulated patients have no blocks")),
        Field("Share of tumour", facts.stated("tumour_share")),
        Field("Missing clinical variables", _missing_variables(facts)),
    ]
    return CardBlock(13, "Robustness", fields)


def explanation(facts: Facts) -> CardBlock:
    """Explanations of single results."""
    fields = [
        Field("Method", TILES),
        Field("Reviewed by", facts.stated("reviewed_by", "features were drawn, no tile can be looked at")),
        Field("Sanity checks", facts.stated("sanity_checks")),
        Field("Limits", "the attention that a model gives a tile is no evidence of what the tile shows"),
    ]
    return CardBlock(14, "Explainability", fields)


def confounders(facts: Facts) -> CardBlock:
    """What else than the tissue could explain the result."""
    fields = [
        Field("Known confounders", facts.lines_or_gap("confounders")),
        Field("Within strata of known proxies", facts.stated("strata", "the simulated cohort has no proxies")),
        Field("Labels permuted", facts.stated("permuted_labels")),
    ]
    subsections = []
    for part in endpoint_reports(facts):
        section = part.report.section(Sites)
        table = None if section is None else estimates_table(section.card_rows(), part.section_source(section))
        text = f"Not in this report: {missing(Sites)}." if table is None else _BY_SITE
        subsections.append(Subsection(part.headed("By site"), [text], [] if table is None else [table]))
    return CardBlock(15, "Confounders and failure modes", fields, subsections)


def oversight(facts: Facts) -> CardBlock:
    """Human oversight."""
    fields = [
        Field(
            "Who confirms",
            f"{facts.tool.users or 'a pathologist'}: every result, by the standard test or reading",
        ),
        Field("Override", "always: nothing follows from a result by itself"),
        Field("Automation bias", "read the slide before the score; a score seen first is hard to forget"),
        Field("Fallback", "without a result, or where it is withheld: the standard pathway"),
        Field("Logging", "mil predict writes one row per patient or slide; keep it with the version of the tool"),
        Field("Training of users", facts.stated("user_training")),
    ]
    return CardBlock(16, "Human oversight and workflow", fields)


def risk(facts: Facts) -> CardBlock:
    """Risks for patients."""
    fields = [
        Field("If a positive is missed", f"the finding goes unseen unless the standard test is done; {_path(facts)}"),
        Field("If a negative is called", f"a test, a reading or worry that was not needed; {_path(facts)}"),
        Field("Severity", facts.stated("severity")),
        Field(
            "Mitigations", "research use only; checked encoders; withheld results; the cut and its intervals are shown"
        ),
        Field("Clinical risk level", not_applicable("nothing may follow from it in patients")),
        Field("Remaining limits", _limits(facts)),
        Field("Report of incidents", facts.stated("incidents")),
    ]
    return CardBlock(17, "Risk and safety", fields)


def monitoring(facts: Facts) -> CardBlock:
    """What to monitor after release."""
    fields = [
        Field("Watch", "distribution of scores, share of positives, of withheld results and of unreadable slides"),
        Field("Set the cut anew when", "the scanner, stain, laboratory or encoder changes"),
        Field(
            "Versions", "major: another endpoint, encoder or meaning of the output; minor: retrained; patch: card only"
        ),
        Field("Changes", "block 24"),
        Field("Expiry", facts.stated("expiry")),
        Field("Deployed at", facts.stated("deployed")),
    ]
    return CardBlock(18, "Monitoring, updating, retirement", fields)


def security(facts: Facts) -> CardBlock:
    """Security of the files, and privacy."""
    membership = "no patient stands behind these weights" if facts.simulated else not_examined("it was not examined")
    fields = [
        Field("File format", "safetensors and JSON; nothing in the folder is executed when it is loaded"),
        Field("Checksums", "manifest.json lists the sha256 of every other file; loading verifies them"),
        Field("Signature", "no part of the card; mil zoo verify says whether the folder is signed, and by which key"),
        Field("Membership inference", membership),
        Field(
            "Personal data in the files",
            facts.choose(f"none: {NOBODY}", "no name, no path, no table of patients"),
        ),
    ]
    return CardBlock(19, "Security and privacy", fields)


def ethics(facts: Facts) -> CardBlock:
    """Ethics, equity and funding."""
    fields = [
        Field("Ethics approval", facts.stated("ethics_approval", NOBODY)),
        Field("Equity", "see block 12" + facts.choose("; simulated groups differ as the simulation drew them", "")),
        Field("Patients involved", facts.stated("involvement")),
        Field("Stakeholders consulted", facts.stated("stakeholders")),
        Field("Funding", facts.stated("funding")),
        Field("Conflicts of interest", facts.stated("conflicts")),
    ]
    return CardBlock(20, "Ethics, equity, involvement, funding", fields)


def _missing_variables(facts: Facts) -> str:
    if facts.manifest.covariates is None:
        return not_applicable("the model reads tiles alone")
    return facts.stated("missing_variables")


def _path(facts: Facts) -> str:
    return "see what follows from each output" if facts.tool.pathway else "the tool names no pathway"


def _limits(facts: Facts) -> list[str]:
    limits = [*([] if facts.external else [NONE]), "no prospective use", "one encoder, one split"]
    return ["the numbers show that the software works, nothing about patients", *limits] if facts.simulated else limits
