"""Blocks 13 to 20: what may go wrong, who supervises the tool, security, ethics."""

from mil.cards.card_facts import Facts, missing
from mil.cards.content import CardBlock, Field, Subsection, absent
from mil.cards.external_validation import NONE
from mil.cards.section_parts import endpoint_reports, estimates_table
from mil.cards.technical import ONE_RUN
from mil.report.sections.site_effects import Sites

NOBODY = "no patient exists; the tool is for research on software"
UNDONE = "it was not examined"
_BY_SITE = (
    "The metric within each site, and how well the site can be predicted from score, label or both; chance is one "
    "divided by the number of sites."
)


def robustness(facts: Facts) -> CardBlock:
    """Robustness to other scanners, stains and tiles."""
    never_scanned = "simulated slides were made once; nothing was scanned"
    fields = [
        Field("Between scanners", facts.absent(never_scanned, UNDONE)),
        Field("Scanned again", facts.absent(never_scanned, UNDONE)),
        Field("Fewer tiles of a slide", absent(UNDONE)),
        Field("Other seeds", absent(f"{ONE_RUN}; see block 9 for its seed")),
        Field("Stain", facts.absent("simulated slides have no stain", UNDONE)),
        Field("Another block of the tumour", facts.absent("simulated patients have no blocks", UNDONE)),
        Field(
            "Share of tumour",
            facts.absent("the share of informative tiles was drawn, its effect was not examined", UNDONE),
        ),
        Field("Missing clinical variables", _missing(facts)),
    ]
    return CardBlock(13, "Robustness", fields)


def explanation(facts: Facts) -> CardBlock:
    """Explanations of single results."""
    fields = [
        Field("Method", absent("no heatmap is released with the weights")),
        Field(
            "Tiles shown", absent("features were drawn, no tile can be shown") if facts.simulated else absent(UNDONE)
        ),
        Field("Reviewed by pathologists", "no"),
        Field("Sanity checks", absent(UNDONE)),
        Field("Limits", "the attention that a model gives a tile is no evidence of what the tile shows"),
    ]
    return CardBlock(14, "Explainability", fields)


def confounders(facts: Facts) -> CardBlock:
    """What else than the tissue could explain the result."""
    fields = [
        Field("Known confounders", facts.lines_or_reason("confounders")),
        Field("Within strata of known proxies", facts.absent("the simulated cohort has no proxies", UNDONE)),
        Field("Labels permuted", absent("no run with permuted labels is part of this release")),
    ]
    subsections = []
    for part in endpoint_reports(facts):
        section = part.report.section(Sites)
        table = None if section is None else estimates_table(section.card_rows(), part.section_source(section))
        text = missing(Sites) if table is None else _BY_SITE
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
        Field("Training of users", absent(NOBODY) if facts.simulated else absent("none is offered")),
    ]
    return CardBlock(16, "Human oversight and workflow", fields)


def risk(facts: Facts) -> CardBlock:
    """Risks for patients."""
    fields = [
        Field("If a positive is missed", f"the finding goes unseen unless the standard test is done; {_path(facts)}"),
        Field("If a negative is called", f"a test, a reading or worry that was not needed; {_path(facts)}"),
        Field("Severity", absent("no clinical risk assessment was made")),
        Field(
            "Mitigations", "research use only; checked encoders; withheld results; the cut and its intervals are shown"
        ),
        Field("Clinical risk level", absent("nothing may follow from it in patients")),
        Field("Remaining limits", _limits(facts)),
        Field("Report of incidents", absent("no use is allowed that could cause one")),
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
        Field("Expiry", absent("none is set; a newer version replaces this one")),
        Field("Deployed anywhere", "not known to be" if not facts.simulated else "no"),
    ]
    return CardBlock(18, "Monitoring, updating, retirement", fields)


def security(facts: Facts) -> CardBlock:
    """Security of the files, and privacy."""
    fields = [
        Field("File format", "safetensors and JSON; nothing in the folder is executed when it is loaded"),
        Field("Checksums", "manifest.json lists the sha256 of every other file; loading verifies them"),
        Field(
            "Signature", absent("the card is part of what would be signed; mil zoo verify says whether the folder is")
        ),
        Field("Membership inference", facts.choose("no patient stands behind these weights", absent(UNDONE))),
        Field(
            "Personal data in the files",
            facts.choose("none: no patient exists", "no name, no path, no table of patients"),
        ),
    ]
    return CardBlock(19, "Security and privacy", fields)


def ethics(facts: Facts) -> CardBlock:
    """Ethics, equity and funding."""
    reason = NOBODY if facts.simulated else "the training site has not stated it"
    fields = [
        Field("Ethics approval", absent(reason)),
        Field("Equity", "see block 12" + facts.choose("; simulated groups differ as the simulation drew them", "")),
        Field("Patients involved", absent(reason)),
        Field("Stakeholders consulted", absent(reason)),
        Field("Funding", absent("the authors state none")),
        Field("Conflicts of interest", absent("the authors state none")),
    ]
    return CardBlock(20, "Ethics, equity, involvement, funding", fields)


def _missing(facts: Facts) -> str:
    if facts.manifest.covariates is None:
        return absent("the model reads tiles alone")
    return absent("the model is told which variables are missing; the effect was not examined")


def _path(facts: Facts) -> str:
    return "see what follows from each output" if facts.tool.pathway else "the tool names no pathway"


def _limits(facts: Facts) -> list[str]:
    limits = [*([] if facts.external else [NONE]), "no prospective use", "one encoder, one split"]
    return ["the numbers show that the software works, nothing about patients", *limits] if facts.simulated else limits
