"""Blocks 21 to 24: what is known, how to do it again, where to read more, what changed."""

from mil.zoo.card.content import Block, Field, Part, Reference, absent
from mil.zoo.card.facts import MANIFEST, REPORT, Facts

POSTURE = (
    "Research use only. Not a medical device: not CE-marked as an in-vitro diagnostic medical device under Regulation "
    "(EU) 2017/746, not cleared or approved by the FDA or anyone else. A product with this purpose would need an "
    "assessment of its own."
)
GLOSSARY = {
    "AUROC": "probability that a positive patient has a higher score than a negative one; 0.5 is chance, 1 is perfect",
    "C-index": "the same of pairs of patients of whom one is known to have had the event first",
    "bag": "all tiles of a patient or of a slide",
    "calibration slope": "1 where predicted probabilities spread as they should, below 1 where they are too extreme",
    "EBAI": "ESMO's framework for AI-based biomarkers in oncology",
    "interval": "where the value would lie in 95% of repetitions, as far as the patients tell",
    "oracle": "in a simulation, a reader who knows which tiles count: the best that any model could reach",
    "PPV, NPV": "share of the called positive who are, share of the called negative who are not",
    "train, select, report": "patients who set the weights; the epoch, cuts and calibration; nothing but the numbers",
}


def level(facts: Facts) -> Block:
    """Evidence and regulatory status."""
    found = facts.tool.get("evidence") or {}
    kind = "development with internal validation; TRIPOD type 1b or 2a by the split of block 8"
    published = [Reference(one["text"], one.get("doi") or one.get("source")) for one in found.get("performance") or []]
    fields = [
        Field("Class and tier", facts.evidence(), f"{MANIFEST}tool.evidence" if found else ""),
        Field("What the class means here", str(found.get("note") or absent("the tool does not say"))),
        Field("Published results of comparable tools, not of this one", published or absent("the tool cites none")),
        Field("Study design", facts.told("a simulation", kind)),
        Field("Prospective", "no"),
        Field("Regulatory status", POSTURE),
    ]
    return Block(21, "Evidence and regulatory status", fields)


def reproduction(facts: Facts) -> Block:
    """How to get the same numbers."""
    manifest = facts.manifest
    versions = ", ".join(f"{name} {found}" for name, found in manifest.training["versions"].items())
    resamples, seed = facts.whole.get("resamples"), facts.whole.get("seed")
    drawn = f"{resamples} resamples, seed {seed}" if resamples is not None else absent("this report does not say")
    again = (
        f"mil train tool={facts.tool['name']}, then mil release"
        if facts.simulated
        else ("mil train on the same cohort table and features, then mil release")
    )
    holds = {True: "holds", False: "DOES NOT HOLD", None: "not applicable"}
    gates = [f"{one['name']}: {holds[one['holds']]}. {one['said']}" for one in facts.report.get("gates") or []]
    fields = [
        Field("Code", f"mil-zoo {manifest.training['versions']['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field("Commit", absent("the version of the code stands above; a commit is not in an installed package")),
        Field("Environment", versions, f"{MANIFEST}training.versions"),
        Field("Command", again),
        Field("Use", "mil predict <this folder> --features <folder> --out scores.csv"),
        Field("Data", facts.told("drawn again from the same seed", "they stay at the training site")),
        Field("Digest of the split", manifest.data["split"]["sha256"], f"{MANIFEST}data.split.sha256"),
        Field("Bootstrap", drawn, f"{REPORT}resamples, seed"),
        Field("Release gates", gates or absent("judged when a run is released"), f"{REPORT}gates"),
        Field("Expected", "the same bytes on the same platform, predictions within 1e-5 elsewhere"),
    ]
    return Block(22, "Reproducibility", fields)


def reading(facts: Facts) -> Block:
    """References, citation, glossary."""
    cited = [Reference(one["text"], one.get("doi") or one.get("url")) for one in facts.tool.get("references") or []]
    fields = [
        Field("References", cited or absent("the tool cites none")),
        Field("Cite this tool as", f"mil zoo, {facts.tool['name']} {facts.tool['version']}: {facts.said('title')}"),
        Field("Glossary", [f"{name}: {meaning}" for name, meaning in GLOSSARY.items()]),
    ]
    return Block(23, "References, citation, glossary", fields)


def changes(facts: Facts) -> Block:
    """What changed in each version."""
    lines = [line.strip().removeprefix("- ") for line in facts.changelog.splitlines() if line.strip()]
    said = [line.lstrip("# ") for line in lines]
    none = [absent("a run has no versions; mil release writes what changed")]
    return Block(24, "Changelog", parts=[Part("Versions", said or none)])
