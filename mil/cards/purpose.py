"""Blocks 0 to 3: identity, facts, intended purpose, and what is out of scope."""

from mil.cards.card_facts import MANIFEST, Facts
from mil.cards.content import CardBlock, Field, not_applicable, not_examined, not_stated

FUNCTIONS = {
    "workflow": "orders or speeds up a pathologist's work",
    "biomarker": "predicts the result of a test, before the test",
    "outcome": "prognosis: orders patients by the risk of an event",
    "response": "estimates the response to a treatment, before it is given",
}
LICENCE, LICENCE_FILE = "research-use-only", "LICENSE-weights.txt"


def tags(facts: Facts) -> list[str]:
    """Return the tags by which a model hub finds the tool."""
    tool, task = facts.tool, getattr(facts.endpoint, "task", None)
    words = ["pathology", "multiple-instance-learning", "whole-slide-image", task, tool.name, tool.category]
    evidence = tool.evidence
    words += [f"ebai-class-{evidence.kind.lower()}"] if evidence.kind else []
    words += [f"tier-{facts.tier[0]}"] if facts.tier[0] is not None else []
    words += [LICENCE, "simulated-data" if facts.simulated else None]
    return list(dict.fromkeys(str(word) for word in words if word))


def identity(facts: Facts) -> CardBlock:
    """Identity and licences, as in the front matter."""
    tool, encoder = facts.tool, facts.manifest.encoder
    no_encoder = not_applicable("the features were drawn by a computer, no encoder made them")
    base = facts.hub() or facts.choose(no_encoder, not_stated())
    fields = [
        Field("Tool", tool.name, f"{MANIFEST}tool.name"),
        Field("Version", tool.version, f"{MANIFEST}tool.version"),
        Field("Date", facts.stated("date")),
        Field("Status", facts.banner),
        Field("Licence of the weights", f"research use only, {LICENCE_FILE} in this folder"),
        Field("Licence of the code", "Apache 2.0"),
        Field("Licence of the encoder", encoder.licence or facts.choose(no_encoder, not_stated())),
        Field("Licence of the data", facts.stated("data_licence", "there are no data of patients")),
        Field("Library", f"mil-zoo {facts.manifest.training.versions['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field("Base model (encoder)", base),
        Field(
            "Revision and hash of the encoder",
            facts.choose(no_encoder, not_examined("feature files name the encoder without revision or hash")),
        ),
        Field("Tags", ", ".join(tags(facts))),
        Field("Data sets", facts.choose(f"simulated cohort of {tool.name}", "those of the training site, not public")),
        Field("Languages", "English; one line in French"),
        Field("Developers", facts.stated("developers")),
        Field("Contact", facts.stated("contact")),
    ]
    return CardBlock(0, "Identity and licences", fields)


def facts_box(facts: Facts) -> CardBlock:
    """The tool in a few lines."""
    lines = facts.tool.summary
    fields = [
        Field("In English", f"{facts.banner}. {lines.en}" if lines.en else not_stated()),
        Field("En français", f"{facts.banner_fr}. {lines.fr}" if lines.fr else not_stated()),
        Field("What it predicts", facts.text("question")),
        Field("For whom", facts.text("population")),
        Field("On what slide", facts.text("specimen")),
        Field("Output", legend(facts)),
        facts.main(),
        Field("Do not use it for", "what block 3 and the first screen of this card list"),
    ]
    return CardBlock(1, "Facts", fields)


def intended(facts: Facts) -> CardBlock:
    """The intended purpose, in the order of instructions for use."""
    roles = sorted(facts.tool.decision.roles()) if facts.tool.decision else []
    role = f"role of the call: {', '.join(roles)}" if roles else None
    function = FUNCTIONS.get(str(facts.tool.category))
    fields = [
        Field("What is detected", facts.text("question")),
        Field("Function", "; ".join(filter(None, [function, role])) or not_stated()),
        Field("Intended use", facts.text("intended_use")),
        Field("Disorder and organ", f"{facts.text('title')}; {facts.text('organ')}"),
        Field("Population", facts.text("population")),
        Field("Specimen", facts.text("specimen")),
        Field("Users", facts.text("users")),
        Field("Setting", facts.tool.setting or facts.stated("setting")),
        Field("Place in the pathway", facts.text("pathway")),
        Field("Alone or with other tests", "never alone: a pathologist and the standard test decide"),
    ]
    return CardBlock(2, "Intended purpose", fields)


def outside(facts: Facts) -> CardBlock:
    """What it must not be used for."""
    misuse = [
        "taking a call below the cut as proof that the finding is absent",
        "using the cut for another scanner, laboratory or specimen without setting it anew",
        "showing highly weighted tiles as proof",
        "using features of another encoder; they are refused if their files name it",
    ]
    fields = [
        Field("Out of scope", facts.lines_or_gap("out_of_scope")),
        Field("Other organs and specimens", f"anything but: {facts.text('specimen')} ({facts.text('organ')})"),
        Field(
            "Scanners and stains",
            facts.choose(not_applicable("simulated slides have neither"), "those of block 7 alone"),
        ),
        Field("Alone", "not as a stand-alone test"),
        Field("Foreseeable misuse", misuse),
    ]
    return CardBlock(3, "Out of scope", fields)


def legend(facts: Facts) -> str:
    """Return what the columns of the predictions mean."""
    text = "" if facts.endpoint is None else facts.endpoint.legend().replace("`", "")
    if facts.manifest.fitted.calibration is not None:
        text += " Columns calibrated_… hold the same numbers calibrated; block 5 has the method."
    return text
