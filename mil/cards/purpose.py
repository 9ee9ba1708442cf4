"""Blocks 0 to 3: what it is, what it is for, and what not."""

from collections.abc import Iterator
from typing import Any

from mil.cards.card_facts import MANIFEST, Facts
from mil.cards.content import Block, Field, Table, absent

FUNCTIONS = {
    "workflow": "orders or speeds up a pathologist's work",
    "biomarker": "predicts the result of a test, before the test",
    "outcome": "prognosis: orders patients by the risk of an event",
}
LICENCE = "research-use-only"
WITHHELD = "withheld"


def tags(facts: Facts) -> list[str]:
    """Words that a model hub finds the tool by."""
    tool, task = facts.tool, getattr(facts.endpoint, "task", None)
    own = ["pathology", "multiple-instance-learning", "whole-slide-image", task, tool["name"], tool.get("category")]
    evidence = tool.get("evidence") or {}
    own += [f"ebai-class-{str(evidence['class']).lower()}"] if evidence.get("class") else []
    own += [f"tier-{facts.tier[0]}"] if facts.tier[0] is not None else []
    own += [LICENCE, "simulated-data" if facts.simulated else None]
    return list(dict.fromkeys(str(tag) for tag in own if tag))


def identity(facts: Facts) -> Block:
    """What the front matter says, for a reader."""
    tool, encoder = facts.tool, facts.manifest.encoder
    no_encoder = "the features were drawn by a computer, no encoder made them"
    base = facts.hub() or facts.either(no_encoder, "the encoder is known under no id of a model hub")
    fields = [
        Field("Tool", str(tool["name"]), f"{MANIFEST}tool.name"),
        Field("Version", str(tool["version"]), f"{MANIFEST}tool.version"),
        Field("Date", absent("left out on purpose, so that the same commit gives the same files; see the version")),
        Field("Status", facts.banner),
        Field("Licence of the weights", "research use only"),
        Field("Licence of the code", "Apache 2.0"),
        Field("Licence of the encoder", encoder.get("licence") or facts.either(no_encoder, "its entry names none")),
        Field("Licence of the data", facts.either("there are no data of patients", "the training site states none")),
        Field("Library", f"mil-zoo {facts.manifest.training['versions']['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field("Base model (encoder)", base),
        Field("Revision and hash of the encoder", facts.either(no_encoder, "feature files name it without either")),
        Field("Tags", ", ".join(tags(facts))),
        Field("Data sets", facts.told(f"simulated cohort of {tool['name']}", "those of the training site, not public")),
        Field("Languages", "English; one line in French"),
        Field("Contact", absent("the authors give none; use the issue tracker of the repository")),
    ]
    return Block(0, "Identity and licences", fields)


def facts_box(facts: Facts) -> Block:
    """The tool in a few lines."""
    lines = facts.tool.get("facts") or {}
    fields = [
        Field("In English", str(lines.get("en") or absent("the tool has no line of facts"))),
        Field("En français", str(lines.get("fr") or absent("the tool has no line of facts"))),
        Field("What it predicts", facts.said("question")),
        Field("For whom", facts.said("population", f"the tool names the organ alone: {facts.said('organ')}")),
        Field("On what slide", facts.said("specimen")),
        Field("Output", legend(facts)),
        facts.main(),
        Field("Do not use it for", "what block 3 and the first screen of this card list"),
    ]
    return Block(1, "Facts", fields)


def intended(facts: Facts) -> Block:
    """The intended purpose, in the order of an instruction for use."""
    roles = sorted({str(rule["role"]) for rule in _rules(facts.tool.get("decision")) if rule.get("role")})
    function = FUNCTIONS.get(str(facts.tool.get("category")), absent("the tool's category says none"))
    fields = [
        Field("What is detected", facts.said("question")),
        Field("Function", function + (f"; role of the call: {', '.join(roles)}" if roles else "")),
        Field("Intended use", facts.said("intended_use")),
        Field("Disorder and organ", f"{facts.said('title')}; {facts.said('organ')}"),
        Field("Population", facts.said("population", "the tool does not limit age or sex; see the organ and specimen")),
        Field("Specimen", facts.said("specimen")),
        Field("Users", facts.said("users")),
        Field("Setting", facts.said("setting", "no setting was studied; research only")),
        Field("Place in the pathway", "and what follows from each output: see this card's first screen"),
        Field("Alone or with other tests", "never alone: a pathologist and the standard test decide"),
    ]
    return Block(2, "Intended purpose", fields)


def outside(facts: Facts) -> Block:
    """What it must not be used for."""
    misuse = [
        "a call below the cut taken as proof that the finding is absent",
        "the cut taken over to another scanner, laboratory or specimen without setting it anew",
        "highly weighted tiles shown as proof",
        "features of another encoder; they are refused where their files name it",
    ]
    fields = [
        Field("Out of scope", facts.items("out_of_scope")),
        Field("Other organs and specimens", f"anything but: {facts.said('specimen')} ({facts.said('organ')})"),
        Field("Scanners and stains", facts.either("simulated slides have neither", "none beyond those of block 7")),
        Field("Ages", absent("the tool states no limit of age")),
        Field("Pre-treated tissue", facts.either("simulated tissue has no treatment", "see the list above")),
        Field("Alone", "not as a stand-alone test"),
        Field("Foreseeable misuse", misuse),
    ]
    return Block(3, "Out of scope", fields)


def legend(facts: Facts) -> str:
    """What the columns of the predictions mean."""
    said = "" if facts.endpoint is None else facts.endpoint.legend().replace("`", "")
    method = (facts.manifest.fitted.get("calibration") or {}).get("method")
    return said + (
        " Beside them stand calibrated ones (columns calibrated_…; by what and on whom, block 5 says)."
        if method
        else ""
    )


def outputs(facts: Facts) -> Table | None:
    """Every output that a call can be, and when it is made."""
    decisions = facts.manifest.fitted.get("decisions") or []
    rows = [row for at, one in enumerate(decisions) for row in _calls(one, at, len(decisions) > 1)]
    novelty = facts.manifest.fitted.get("novelty")
    if novelty:
        when = f"a slide has fewer than {novelty['min_tiles']} tiles, or features unlike those of the training slides"
        rows.append((WITHHELD, when + "; no result is given", f"{MANIFEST}fitted.novelty"))
    return Table(("Output", "When", "Source"), rows) if rows else None


def _calls(one: dict[str, Any], at: int, several: bool) -> Iterator[tuple[str, str, str]]:
    source = f"{MANIFEST}fitted.decisions[{at}]"
    cuts, calls, score = one["cuts"], one["calls"], " + ".join(one["columns"])
    if one["rule"].get("rule") == "argmax":
        least = f", its probability at least {cuts[0]:.4g}" if cuts else ""
        for call in calls[: len(one["columns"])]:
            yield call, f"the likeliest class{least}", source
        for call in calls[len(one["columns"]) :]:
            yield call, f"no class has a probability of {cuts[0]:.4g}", source
        return
    for place, call in enumerate(calls):
        low, high = (None if place == 0 else cuts[place - 1]), (None if place == len(cuts) else cuts[place])
        ends = [f"at least {low:.4g}"] if low is not None else []
        ends += [f"below {high:.4g}"] if high is not None else []
        yield f"{one['name']}: {call}" if several else call, f"{score} {' and '.join(ends)}", source


def _rules(decision: Any) -> Iterator[dict[str, Any]]:
    """Every rule within a tool's decision."""
    if isinstance(decision, dict):
        if "rule" in decision:
            yield decision
        for value in decision.values():
            yield from _rules(value)
