"""Blocks 21 to 24: evidence, reproducibility, references, changelog."""

from mil.cards.card_facts import MANIFEST, REPORT, Facts, short_digest
from mil.cards.content import CardBlock, Field, Reference, Subsection, not_examined, not_stated

POSTURE = (
    "Research use only. Not a medical device: not CE-marked as an in-vitro diagnostic medical device under Regulation "
    "(EU) 2017/746, not cleared or approved by the FDA or anyone else. A product with this purpose would need its own "
    "assessment."
)
GLOSSARY = {
    "aggregator": "the model that computes one score for a slide from the features of its tiles",
    "AUROC": "probability that a positive patient has a higher score than a negative one; 0.5 is chance, 1 is perfect",
    "bag": "all tiles of a patient or of a slide",
    "Brier score": "mean squared distance of the predicted probability from what happened; scaled, 0 is no better than "
    "stating the prevalence, 1 is perfect",
    "C-index": "like the AUROC, for pairs of patients of whom one is known to have had the event first",
    "calibration slope": "1 where predicted probabilities spread as they should, below 1 where they are too extreme",
    "coverage": "share of the patients whose set or interval contains the truth, or whom a rule decides",
    "cut, frozen": "the value of the score at which a call changes, set before the reported patients were predicted",
    "EBAI": "ESMO's framework for AI-based biomarkers in oncology",
    "ECE, ICI": "mean distance between predicted and observed probability, over groups or along a smooth curve",
    "encoder": "the network that turns the image of a tile into numbers, its features",
    "interval": "the range that would contain the true value in 95% of repetitions",
    "kappa, quadratic": "agreement beyond chance on ordered classes, larger errors count more; 0 is chance, 1 perfect",
    "likeliest class": "the class of highest probability, which accuracy and balanced accuracy use; no cut is involved",
    "LR+, LR−": "how many times more often a call is made in positive than in negative patients; 1 is uninformative",
    "mean pooling, linear": "the simplest aggregator: the mean of all tiles, and a linear model of it",
    "net benefit": "true positives less false positives, these weighed by the threshold at which one would act",
    "oracle": "in a simulation, a reader who knows which tiles count: the best that any model could reach",
    "PPV, NPV": "share of the patients called positive who are positive, and of those called negative who are negative",
    "release gates": "ten conditions, judged when a tool is released; one that fails is reported and stops nothing",
    "set, conformal": "the classes that a result leaves possible; a singleton leaves one, an empty set none",
    "tier": "our own grade of the evidence, 1 the most to 3 the least; 3 where sites were not kept apart",
    "tile": "a small square of the slide",
    "train, select, report": "patients used to fit weights; to choose epoch, cuts and calibration; to compute numbers",
}
_EVIDENCE = f"{MANIFEST}tool.evidence, data.split.strategy"


def level(facts: Facts) -> CardBlock:
    """Evidence and regulatory status."""
    evidence = facts.tool.evidence
    design = "development with internal validation; TRIPOD type 1b or 2a by the split of block 8"
    published = [Reference(entry.text, entry.doi or entry.source) for entry in evidence.performance]
    fields = [
        Field("Class and tier", facts.evidence(), _EVIDENCE if evidence.kind else ""),
        Field("What the class means here", evidence.note or not_stated()),
        Field("Published results of comparable tools, not of this one", published or not_stated()),
        Field("Study design", facts.choose("a simulation", design)),
        Field("Prospective", facts.stated("prospective", "the cohort is simulated")),
        Field("Studies of this release", list(facts.statements.evidence) or not_stated()),
        Field("Publications on this release", facts.stated("publications")),
        Field("Protocol", facts.stated("protocol")),
        Field("Registration", facts.stated("registration")),
        Field("Examined by others", facts.stated("third_parties")),
        Field("Next steps", facts.stated("next_steps")),
        Field("Regulatory status", POSTURE),
    ]
    return CardBlock(21, "Evidence and regulatory status", fields)


def reproduction(facts: Facts) -> CardBlock:
    """How to reproduce the numbers."""
    manifest = facts.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.training.versions.items())
    bootstrap = f"{facts.all_folds.resamples} resamples, seed {facts.all_folds.seed}"
    command = (
        f"mil train tool={facts.tool.name}, then mil release"
        if facts.simulated
        else ("mil train on the same cohort table and features, then mil release")
    )
    holds = {True: "holds", False: "DOES NOT HOLD", None: "not applicable"}
    gates = [
        f"{gate.number}, {gate.name}: {holds[gate.holds]} ({gate.sentence.rstrip('.')})" for gate in facts.report.gates
    ]
    fields = [
        Field("Code", f"mil-zoo {manifest.training.versions['mil-zoo']}", f"{MANIFEST}training.versions"),
        Field(
            "Commit",
            not_examined("the version of the code stands in block 22; a commit is not in an installed package"),
        ),
        Field("Environment", versions, f"{MANIFEST}training.versions"),
        Field("Command", command),
        Field("Use", "mil predict <this folder> --features <folder> --out scores.csv"),
        Field("Data", facts.choose("simulated again from the same seed", "they stay at the training site")),
        Field("Digest of the split", short_digest(manifest.data.split.sha256), f"{MANIFEST}data.split.sha256"),
        Field("Bootstrap", bootstrap, f"{REPORT}resamples, seed"),
        Field("Release gates", gates or not_examined("gates are judged when a run is released"), f"{REPORT}gates"),
        Field("Expected", "the same bytes on the same platform, predictions within 1e-5 elsewhere"),
    ]
    return CardBlock(22, "Reproducibility", fields)


def reading(facts: Facts) -> CardBlock:
    """References, citation, glossary."""
    cited = [Reference(entry.text, entry.doi or entry.url) for entry in facts.tool.references]
    fields = [
        Field("References", cited or not_stated()),
        Field("Cite this tool as", f"mil zoo, {facts.tool.name} {facts.tool.version}: {facts.text('title')}"),
        Field("Glossary", [f"{name}: {meaning}" for name, meaning in GLOSSARY.items()]),
    ]
    return CardBlock(23, "References, citation, glossary", fields)


def changes(facts: Facts) -> CardBlock:
    """What changed in each version."""
    lines = [line.strip().removeprefix("- ") for line in facts.changelog.splitlines() if line.strip()]
    changes = [line.lstrip("# ") for line in lines]
    none = ["A run has no versions; mil release writes what changed."]
    return CardBlock(24, "Changelog", subsections=[Subsection("Versions", changes or none)])
