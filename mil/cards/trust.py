"""Blocks 13 to 20: what may go wrong, who watches, and who was asked."""

from mil.cards.card_facts import Facts
from mil.cards.content import Block, Field, Part, absent
from mil.cards.measured import below, numbers
from mil.cards.section_tables import reports
from mil.cards.technical import ONE_RUN

NOBODY = "no patient exists; the tool is for research on software"
UNDONE = "it was not examined"
_BY_SITE = (
    "The metric within each site, and how well the site is told from score, label or both; chance is one divided by "
    "the number of sites."
)


def robustness(facts: Facts) -> Block:
    """What changes when the slide does."""
    one = "simulated slides were made once; nothing was scanned"
    fields = [
        Field("Between scanners", facts.either(one, UNDONE)),
        Field("Scanned again", facts.either(one, UNDONE)),
        Field("Fewer tiles of a slide", absent(UNDONE)),
        Field("Other seeds", absent(f"{ONE_RUN}; see block 9 for its seed")),
        Field("Stain", facts.either("simulated slides have no stain", UNDONE)),
        Field("Another block of the tumour", facts.either("simulated patients have no blocks", UNDONE)),
        Field("Share of tumour", facts.either("the share of telling tiles was drawn, its effect not examined", UNDONE)),
        Field("Missing clinical variables", _missing(facts)),
    ]
    return Block(13, "Robustness", fields)


def explanation(facts: Facts) -> Block:
    """What can be seen of the model's reasons."""
    fields = [
        Field("Method", absent("no heatmap is released with the weights")),
        Field(
            "Tiles shown", absent("features were drawn, no tile can be shown") if facts.simulated else absent(UNDONE)
        ),
        Field("Reviewed by pathologists", "no"),
        Field("Sanity checks", absent(UNDONE)),
        Field("Limits", "the weight that a model gives a tile is not evidence of what is seen there"),
    ]
    return Block(14, "Explainability", fields)


def confounders(facts: Facts) -> Block:
    """What could stand behind the result instead of the tissue."""
    fields = [
        Field("Known confounders", facts.items("confounders")),
        Field("Within strata of known proxies", facts.either("the simulated cohort has no proxies", UNDONE)),
        Field("Labels permuted", absent("no run with permuted labels is part of this release")),
    ]
    parts = []
    for name, report, source in reports(facts):
        found, heading = report.get("site"), f"{name}: By site" if name else "By site"
        table = numbers(found, below(source, "site")) if found else None
        words = _BY_SITE if table else facts.missing("site")
        parts.append(Part(heading, [words], [table] if table else []))
    return Block(15, "Confounders and failure modes", fields, parts)


def oversight(facts: Facts) -> Block:
    """Who decides."""
    fields = [
        Field(
            "Who confirms",
            f"{facts.tool.get('users') or 'a pathologist'}: every result, by the standard test or reading",
        ),
        Field("Override", "always: nothing follows from a result by itself"),
        Field("Automation bias", "read the slide before the score; a score seen first is hard to forget"),
        Field("Fallback", "without a result, or where it is withheld: the standard pathway"),
        Field("Logging", "mil predict writes one row a patient or slide; keep it with the version of the tool"),
        Field("Training of users", absent(NOBODY) if facts.simulated else absent("none is offered")),
    ]
    return Block(16, "Human oversight and workflow", fields)


def risk(facts: Facts) -> Block:
    """Hazards."""
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
    return Block(17, "Risk and safety", fields)


def monitoring(facts: Facts) -> Block:
    """What to watch after release."""
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
    return Block(18, "Monitoring, updating, retirement", fields)


def security(facts: Facts) -> Block:
    """Files and privacy."""
    fields = [
        Field("File format", "safetensors and JSON; nothing in the folder is executed when it is loaded"),
        Field("Checksums", "manifest.json counts the sha256 of every other file; loading verifies them"),
        Field(
            "Signature", absent("the card is part of what would be signed; mil zoo verify says whether the folder is")
        ),
        Field("Membership inference", facts.told("no patient stands behind these weights", absent(UNDONE))),
        Field(
            "Personal data in the files",
            facts.told("none: no patient exists", "no name, no path, no table of patients"),
        ),
    ]
    return Block(19, "Security and privacy", fields)


def ethics(facts: Facts) -> Block:
    """People."""
    reason = NOBODY if facts.simulated else "the training site has not stated it"
    fields = [
        Field("Ethics approval", absent(reason)),
        Field("Equity", "see block 12" + facts.told("; simulated groups differ as the simulation drew them", "")),
        Field("Patients involved", absent(reason)),
        Field("Stakeholders consulted", absent(reason)),
        Field("Funding", absent("the authors state none")),
        Field("Conflicts of interest", absent("the authors state none")),
    ]
    return Block(20, "Ethics, equity, involvement, funding", fields)


def _missing(facts: Facts) -> str:
    if facts.manifest.covariates is None:
        return absent("the model reads tiles alone")
    return absent("what is missing is told to the model; its effect was not examined")


def _path(facts: Facts) -> str:
    return "see what follows from each output" if facts.tool.get("pathway") else "the tool names no pathway"


def _limits(facts: Facts) -> list[str]:
    said = ["no external validation", "no prospective use", "one encoder, one split"]
    return ["the numbers say that the software works, nothing about patients", *said] if facts.simulated else said
