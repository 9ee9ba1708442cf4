"""Blocks 4, 5 and 9: what goes in, what comes out, and the model between."""

from typing import Any

from mil.cards.card_facts import MANIFEST, Facts, built, shortened
from mil.cards.content import Block, Field, Part, absent
from mil.cards.purpose import legend, outputs
from mil.cards.section_tables import pictures

METHODS = {
    "platt": "Platt's scaling (a logistic regression of the truth on the score)",
    "temperature": "temperature scaling (one factor for all scores)",
    "isotonic": "isotonic regression (steps that only rise)",
    "baseline": "one shift of all risks of a horizon (a new baseline)",
    "baseline_slope": "one shift of all risks of a horizon and one factor for their spread",
}
"""Of calibration, in words."""
ONE_RUN = "one model was trained in one run"


def inputs(facts: Facts) -> Block:
    """What the tool reads."""
    manifest, encoder = facts.manifest, facts.manifest.encoder
    tiles, data = manifest.data.get("geometry") or {}, manifest.training.get("data") or {}
    known = "said by every feature file" if encoder["verified"] else "not verified: some feature files do not name it"
    most = data.get("max_tiles")
    fields = [
        Field("Encoder", f"{encoder['name']}, {encoder['dim']} numbers a tile; {known}", f"{MANIFEST}encoder"),
        Field("Which encoder one would use", facts.said("encoder_note")),
        Field("Tile size", _size(tiles.get("tile_px"), "px"), f"{MANIFEST}data.geometry.tile_px"),
        Field("Resolution", _size(tiles.get("mpp"), "µm a pixel"), f"{MANIFEST}data.geometry.mpp"),
        Field("Fewest tiles", _fewest(facts), f"{MANIFEST}fitted.novelty.min_tiles"),
        Field("Most tiles", "no limit" if most is None else f"{most} in training, drawn anew each epoch; none after"),
        Field(
            "Tissue or tumour detection", facts.either("no slide was segmented", "done by whoever made the features")
        ),
        Field(
            "Feature files",
            "features (n, d) of n tiles, and their coordinates (n, 2) in pixels of the full resolution; no images",
        ),
        Field("Specimen and stain", facts.said("specimen")),
        Field("Formats", "those of TRIDENT, CLAM, STAMP and other producers of features; see the repository's README"),
        Field("Quality gate", _gate(facts), f"{MANIFEST}fitted.novelty"),
        Field("On too few tiles", "the result is withheld, with the reason" if _novelty(facts) else absent(_NO_GATE)),
        Field("Several slides of a patient", _bag(manifest.data["bag"]), f"{MANIFEST}data.bag"),
        Field("Clinical variables", _clinical(facts), f"{MANIFEST}covariates"),
    ]
    return Block(4, "Inputs", fields)


def results(facts: Facts) -> Block:
    """What the tool gives."""
    fitted, table = facts.manifest.fitted, outputs(facts)
    calibrated = fitted.get("calibration") or {}
    method = calibrated.get("method")
    coverage = (fitted.get("conformal") or {}).get("coverage")
    calls = [f"{name}: {when}" for name, when, _ in table.rows] if table else [absent("the tool makes no call")]
    sets = f"a set or an interval that should hold the truth with probability {coverage}"
    fields = [
        Field("Scores, their direction and unit", legend(facts)),
        Field(
            "Calibrated probability",
            f"by {METHODS.get(method, method)}, fitted on {calibrated.get('on', 'select')} patients"
            if method
            else absent(_uncalibrated(facts)),
            f"{MANIFEST}fitted.calibration" if method else "",
        ),
        Field("Category", calls, f"{MANIFEST}fitted.decisions" if table else ""),
        Field("Abstention", _abstention(facts)),
        Field("Uncertainty of one result", sets if coverage else absent("one model gives no spread, and no set"), ""),
        Field("Tiles shown", absent("the command line writes scores, no tiles; attention is not evidence")),
        Field("Errors", "one line a file or slide that cannot be read, and an exit status that is not zero"),
        Field("How to read it", "see What to do with each output, on this card's first screen"),
    ]
    return Block(5, "Outputs", fields)


def model(facts: Facts) -> Block:
    """What was trained, and how."""
    manifest, training = facts.manifest, facts.manifest.training
    best, source = training.get("best_epoch"), f"{MANIFEST}training"
    kept = f"of epoch {best}, the lowest loss on the select patients" if best else "of the last epoch: no validation"
    weights = manifest.files.get("weights.safetensors")
    threads = f"{training['threads']} thread{'s' if training['threads'] != 1 else ''}"
    fields = [
        Field("Aggregator", built({"_target_": manifest.model.name, **manifest.model.options}), f"{MANIFEST}model"),
        Field("Why this one", facts.said("model_note")),
        Field("Parameters", f"{training['parameters']:,}", f"{source}.parameters"),
        Field("Loss", f"that of {manifest.endpoint.name}", f"{MANIFEST}endpoint"),
        Field("Optimiser", built(training.get("optimizer")) or absent("not recorded"), f"{source}.optimizer"),
        Field("Schedule", built(training.get("schedule")) or absent("none was used"), f"{source}.schedule"),
        Field("Search over settings", absent("not recorded; the settings used are in this block")),
        Field("Early stopping", f"weights {kept}, of {training['epochs']} epochs", f"{source}.best_epoch"),
        Field("Seed", str(training["seed"]), f"{source}.seed"),
        Field("Ensemble", absent(f"{ONE_RUN}; these are the weights of one fold")),
        Field("Hardware", f"precision {training['precision']}, {threads}", f"{source}.precision, threads"),
        Field("Time and energy", absent("not measured: they would differ from one build to the next")),
        Field("Weights", shortened(weights) if weights else absent("not sealed yet"), f"{MANIFEST}files"),
        Field("Federated learning", absent("not used: all training patients were in one place")),
    ]
    figures = pictures(facts, ("fitted",))
    parts = [Part("How the training went", figures=figures)] if figures else []
    return Block(9, "Model and training", fields, parts)


def _uncalibrated(facts: Facts) -> str:
    asked = facts.tool.get("calibration")
    return f"{asked} was asked for, the select patients could not set it" if asked else "the tool asks for none"


_NO_GATE = "the tool asks for no check of novelty"


def _novelty(facts: Facts) -> dict[str, Any]:
    return facts.manifest.fitted.get("novelty") or {}


def _fewest(facts: Facts) -> str:
    found = _novelty(facts)
    return str(found["min_tiles"]) if found else absent(_NO_GATE)


def _gate(facts: Facts) -> str:
    found = _novelty(facts)
    if not found:
        return absent(_NO_GATE)
    seen = found.get("features")
    tiles = f"fewer than {found['min_tiles']} tiles"
    far = f", or features too far from those of {found['train']} training bags" if seen else ""
    return f"a result is withheld for {tiles}{far}; blur, pen and folds are for the producer of the features to find"


def _abstention(facts: Facts) -> str:
    between = [name for one in facts.manifest.fitted.get("decisions") or [] for name in one["calls"]]
    found = [name for name in ("indeterminate", "abstained") if name in between]
    if _novelty(facts):
        found.append("withheld")
    return ", ".join(found) or absent("the rule calls every patient, and there is no check of novelty")


def _bag(bag: str) -> str:
    if bag == "patient":
        return "their tiles are one bag"
    return "each slide is scored; a patient's scores are averaged"


def _clinical(facts: Facts) -> str:
    found = facts.manifest.covariates
    if found is None:
        return absent("the model reads tiles alone")
    how = "added to the logits" if found.fusion == "late" else "they also gate the bag's embedding"
    names = ", ".join([*found.numeric, *found.categorical])
    return f"{names}; {how}; numbers standardised on training patients, what is missing is told to the model"


def _size(value: float | None, unit: str) -> str:
    return absent("the feature files do not say") if value is None else f"{value:g} {unit}"
