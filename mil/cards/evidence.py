"""Blocks 21 to 24: what is known, how to do it again, where to read more, what changed."""

from mil.cards.card_facts import MANIFEST, REPORT, Facts, shortened
from mil.cards.content import Block, Field, Part, Reference, absent

POSTURE = (
    "Research use only. Not a medical device: not CE-marked as an in-vitro diagnostic medical device under Regulation "
    "(EU) 2017/746, not cleared or approved by the FDA or anyone else. A product with this purpose would need an "
    "assessment of its own."
)
GLOSSARY = {
    "aggregator": "the part of the tool that makes one score of a slide out of the features of its tiles",
    "AUROC": "probability that a positive patient has a higher score than a negative one; 0.5 is chance, 1 is perfect",
    "bag": "all tiles of a patient or of a slide",
    "Brier score": "mean squared distance of the predicted probability from what happened; scaled, 0 is no better than "
    "stating the prevalence, 1 is perfect",
    "C-index": "as the AUROC, of pairs of patients of whom one is known to have had the event first",
    "calibration slope": "1 where predicted probabilities spread as they should, below 1 where they are too extreme",
    "coverage": "share of the patients whose set or interval holds the truth, or whom a rule decides",
    "cut, frozen": "the value of the score from which a call changes, set before the reported patients were predicted",
    "EBAI": "ESMO's framework for AI-based biomarkers in oncology",
    "ECE, ICI": "mean distance between predicted and observed probability, over groups or along a smooth curve",
    "encoder": "the network that turns the image of a tile into numbers, its features",
    "interval": "where the value would lie in 95% of repetitions, as far as the patients tell",
    "kappa, quadratic": "agreement beyond chance on ordered classes, far misses counted more; 0 is chance, 1 perfect",
    "likeliest class": "what accuracy and balanced accuracy call, the class of highest probability; no cut is used",
    "LR+, LR−": "how many times more often a call is made in positive than in negative patients; 1 tells nothing",
    "mean pooling, linear": "the simplest aggregator: the mean of all tiles, and a linear model of it",
    "net benefit": "true positives less false positives, these weighed by the threshold at which one would act",
    "oracle": "in a simulation, a reader who knows which tiles count: the best that any model could reach",
    "PPV, NPV": "share of the called positive who are, share of the called negative who are not",
    "release gates": "ten conditions, judged when a tool is released; one that does not hold is said, it stops nothing",
    "set, conformal": "the classes that a result leaves possible; a singleton leaves one, an empty set none",
    "tier": "our own grade of the evidence, 1 the most to 3 the least; 3 where sites were not kept apart",
    "tile": "a small square of the slide",
    "train, select, report": "patients who set the weights; the epoch, cuts and calibration; nothing but the numbers",
}


def level(facts: Facts) -> Block:
    """Evidence and regulatory status."""
    found = facts.tool.get("evidence") or {}
    kind = "development with internal validation; TRIPOD type 1b or 2a by the split of block 8"
    published = [Reference(one["text"], one.get("doi") or one.get("source")) for one in found.get("performance") or []]
    fields = [
        Field("Class and tier", facts.evidence(), f"{MANIFEST}tool.evidence, data.split.strategy" if found else ""),
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
    judged = facts.report.get("gates") or []
    gates = [f"{one['number']}, {one['name']}: {holds[one['holds']]} ({one['said'].rstrip('.')})" for one in judged]
    fields = [
        Field("Code", f"mil-zoo {manifest.training['versions']['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field("Commit", absent("the version of the code stands above; a commit is not in an installed package")),
        Field("Environment", versions, f"{MANIFEST}training.versions"),
        Field("Command", again),
        Field("Use", "mil predict <this folder> --features <folder> --out scores.csv"),
        Field("Data", facts.told("drawn again from the same seed", "they stay at the training site")),
        Field("Digest of the split", shortened(manifest.data["split"]["sha256"]), f"{MANIFEST}data.split.sha256"),
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
