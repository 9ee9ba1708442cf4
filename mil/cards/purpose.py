"""Blocks 0 to 3: identity, facts, intended purpose, and what is out of scope."""

from mil.cards.card_facts import MANIFEST, Facts
from mil.cards.content import CardBlock, Field, absent

FUNCTIONS = {
    "workflow": "orders or speeds up a pathologist's work",
    "biomarker": "predicts the result of a test, before the test",
    "outcome": "prognosis: orders patients by the risk of an event",
}
LICENCE = "research-use-only"


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
    no_encoder = "the features were drawn by a computer, no encoder made them"
    base = facts.hub() or facts.absent(no_encoder, "the encoder has no known id on a model hub")
    fields = [
        Field("Tool", tool.name, f"{MANIFEST}tool.name"),
        Field("Version", tool.version, f"{MANIFEST}tool.version"),
        Field("Date", absent("left out on purpose, so that the same commit gives the same files; see the version")),
        Field("Status", facts.banner),
        Field("Licence of the weights", "research use only"),
        Field("Licence of the code", "Apache 2.0"),
        Field("Licence of the encoder", encoder.licence or facts.absent(no_encoder, "its entry names none")),
        Field("Licence of the data", facts.absent("there are no data of patients", "the training site states none")),
        Field("Library", f"mil-zoo {facts.manifest.training.versions['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field("Base model (encoder)", base),
        Field(
            "Revision and hash of the encoder",
            facts.absent(no_encoder, "feature files name the encoder without revision or hash"),
        ),
        Field("Tags", ", ".join(tags(facts))),
        Field("Data sets", facts.choose(f"simulated cohort of {tool.name}", "those of the training site, not public")),
        Field("Languages", "English; one line in French"),
        Field("Contact", absent("the authors give none; use the issue tracker of the repository")),
    ]
    return CardBlock(0, "Identity and licences", fields)


def facts_box(facts: Facts) -> CardBlock:
    """The tool in a few lines."""
    lines = facts.tool.summary
    fields = [
        Field("In English", lines.en or absent("the tool has no line of facts")),
        Field("En français", lines.fr or absent("the tool has no line of facts")),
        Field("What it predicts", facts.text("question")),
        Field("For whom", facts.text("population", f"the tool names the organ alone: {facts.text('organ')}")),
        Field("On what slide", facts.text("specimen")),
        Field("Output", legend(facts)),
        facts.main(),
        Field("Do not use it for", "what block 3 and the first screen of this card list"),
    ]
    return CardBlock(1, "Facts", fields)


def intended(facts: Facts) -> CardBlock:
    """The intended purpose, in the order of instructions for use."""
    roles = sorted(facts.tool.decision.roles()) if facts.tool.decision else []
    function = FUNCTIONS.get(str(facts.tool.category), absent("the tool's category says none"))
    fields = [
        Field("What is detected", facts.text("question")),
        Field("Function", function + (f"; role of the call: {', '.join(roles)}" if roles else "")),
        Field("Intended use", facts.text("intended_use")),
        Field("Disorder and organ", f"{facts.text('title')}; {facts.text('organ')}"),
        Field("Population", facts.text("population", "the tool does not limit age or sex; see the organ and specimen")),
        Field("Specimen", facts.text("specimen")),
        Field("Users", facts.text("users")),
        Field("Setting", facts.text("setting", "no setting was studied; research only")),
        Field("Place in the pathway", "and what follows from each output: see this card's first screen"),
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
        Field("Out of scope", facts.lines_or_reason("out_of_scope")),
        Field("Other organs and specimens", f"anything but: {facts.text('specimen')} ({facts.text('organ')})"),
        Field("Scanners and stains", facts.absent("simulated slides have neither", "none beyond those of block 7")),
        Field("Ages", absent("the tool states no limit of age")),
        Field("Pre-treated tissue", facts.absent("simulated tissue has no treatment", "see the list above")),
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
