"""Blocks 4, 5 and 9: inputs, outputs, and the model."""

from collections.abc import Mapping

from pydantic import JsonValue

from mil.cards.card_facts import MANIFEST, Facts, component, short_digest
from mil.cards.content import CardBlock, Field, Subsection, not_applicable, not_examined, not_stated
from mil.cards.outputs import outputs
from mil.cards.purpose import legend
from mil.cards.section_parts import training_figures
from mil.manifest import EncoderRecord, Manifest, SelectionRecord, TrainingRecord

METHODS = {
    "platt": "Platt's scaling (a logistic regression of the truth on the score)",
    "temperature": "temperature scaling (one factor for all scores)",
    "isotonic": "isotonic regression (steps that only rise)",
    "baseline": "one shift of all risks of a horizon (a new baseline)",
    "baseline_slope": "one shift of all risks of a horizon and one factor for their spread",
}
"""Methods of calibration, in words."""
TILES = (
    "mil predict --tiles FOLDER writes coordinates and attention of every tile, for models that have attention; "
    "attention is no evidence"
)
ONE_RUN = "one model was trained in one run"


def _encoder(encoder: EncoderRecord, verified: str, members: int) -> tuple[str, str]:
    """Return label and text of the field about the encoder, or about several whose features are joined."""
    if not encoder.parts:
        return "Encoder", f"{encoder.name}, {encoder.dim} features per tile; {verified}"
    amount = "one model" if members == 1 else f"{members} models"
    names = " and ".join(f"{part.name} ({part.dim} features per tile)" for part in encoder.parts)
    how = (
        "one model reads them side by side"
        if encoder.combined == "concatenate"
        else f"an ensemble of {amount} for each, whose logits are averaged"
    )
    return "Encoders", f"{names}, of the same tiles, joined by their positions; {how}; {verified}"


def inputs(facts: Facts) -> CardBlock:
    """What the tool reads."""
    manifest, encoder = facts.manifest, facts.manifest.encoder
    geometry = manifest.data.geometry
    verified = "named by every feature file" if encoder.verified else "not verified: some feature files do not name it"
    fields = [
        Field(*_encoder(encoder, verified, manifest.members), f"{MANIFEST}encoder"),
        Field("Which encoder one would use", facts.text("encoder_note")),
        Field("Tile size", _size(geometry.tile_px, "px"), f"{MANIFEST}data.geometry.tile_px"),
        Field("Resolution", _size(geometry.mpp, "µm per pixel"), f"{MANIFEST}data.geometry.mpp"),
        Field("Fewest tiles", _fewest(facts), f"{MANIFEST}fitted.novelty.min_tiles"),
        Field("Most tiles", _most_tiles(manifest.training.data.get("max_tiles"))),
        Field(
            "Tissue or tumour detection",
            facts.choose(not_applicable("no slide was segmented"), "done by whoever made the features"),
        ),
        Field(
            "Feature files",
            "features (n, d) of n tiles, and coordinates (n, 2) in pixels of the full resolution; no images",
        ),
        Field("Specimen and stain", facts.text("specimen")),
        Field("Formats", "those of TRIDENT, CLAM, STAMP and other producers of features; see the repository's README"),
        Field("Quality gate", _gate(facts), f"{MANIFEST}fitted.novelty"),
        Field(
            "On too few tiles",
            "the result is withheld, with the reason" if facts.manifest.fitted.novelty else not_applicable(_NO_GATE),
        ),
        Field("Several slides of a patient", _bag(manifest.data.bag), f"{MANIFEST}data.bag"),
        Field("Clinical variables", _clinical(facts), f"{MANIFEST}covariates"),
    ]
    return CardBlock(4, "Inputs", fields)


def results(facts: Facts) -> CardBlock:
    """What the tool returns."""
    fitted, listed = facts.manifest.fitted, outputs(facts)
    calibration = fitted.calibration
    coverage = None if fitted.conformal is None else fitted.conformal.coverage
    calls = [f"{output.name}: {output.meaning} ({output.condition})" for output in listed]
    sets = f"a set or an interval that should hold the truth with probability {coverage}"
    fields = [
        Field("Scores, their direction and unit", legend(facts)),
        Field(
            "Calibrated probability",
            f"by {METHODS.get(calibration.method, calibration.method)}, fitted on {calibration.on} patients"
            if calibration
            else not_applicable(_uncalibrated(facts)),
            f"{MANIFEST}fitted.calibration" if calibration else "",
        ),
        Field(
            "Category",
            calls or not_applicable("the tool makes no call"),
            f"{MANIFEST}fitted.decisions" if calls else "",
        ),
        Field("Abstention", _abstention(facts)),
        Field(
            "Uncertainty of one result",
            sets if coverage else not_applicable("one model gives no spread, and no prediction set was asked for"),
            "",
        ),
        Field("Tiles", TILES),
        Field("Errors", "one line per file or slide that cannot be read, and an exit status other than zero"),
        Field("How to read it", "see What to do with each output, on this card's first screen"),
    ]
    return CardBlock(5, "Outputs", fields)


def model(facts: Facts) -> CardBlock:
    """What was trained, and how."""
    manifest, training = facts.manifest, facts.manifest.training
    source = f"{MANIFEST}training"
    weights = manifest.files.get("weights.safetensors")
    threads = f"{training.threads} thread{'s' if training.threads != 1 else ''}"
    fields = [
        Field("Aggregator", component({"_target_": manifest.model.name, **manifest.model.options}), f"{MANIFEST}model"),
        Field("Why this one", facts.text("model_note")),
        Field("Parameters", f"{training.parameters:,}", f"{source}.parameters"),
        Field("Loss", f"that of {manifest.endpoint.name}", f"{MANIFEST}endpoint"),
        Field("Optimiser", component(training.optimizer) or not_examined("not recorded"), f"{source}.optimizer"),
        Field("Schedule", component(training.schedule) or "none", f"{source}.schedule"),
        Field("Search over settings", facts.stated("tuning")),
        Field("Balance of classes", _balance(training.data), f"{source}.data"),
        Field("Early stopping", _chosen(training), f"{source}.best_epoch"),
        Field("Seed", str(training.seed), f"{source}.seed"),
        Field("Ensemble", *_ensemble(manifest)),
        Field("Hardware", f"precision {training.precision}, {threads}", f"{source}.precision, training.threads"),
        Field("Time and energy", not_examined("not measured")),
        Field(
            "Weights",
            short_digest(weights) if weights else not_examined("the folder is not sealed yet"),
            f"{MANIFEST}files",
        ),
        _federated(facts),
    ]
    figures = training_figures(facts)
    subsections = [Subsection("Course of the training", figures=figures)] if figures else []
    return CardBlock(9, "Model and training", fields, subsections)


def _ensemble(manifest: Manifest) -> tuple[str, str]:
    """Return the text of the field about members that differ by their random start, and its source."""
    if manifest.members == 1:
        return f"none: {ONE_RUN}; these are the weights of one fold", ""
    each = " for each encoder" if manifest.encoder.combined == "ensemble" else ""
    text = (
        f"an ensemble of {manifest.members} networks{each} that differ by their random start; their logits are "
        "averaged; they were trained side by side in one run, and these are the weights of one fold"
    )
    return text, f"{MANIFEST}members"


def _federated(facts: Facts) -> Field:
    record = (facts.manifest.training.model_extra or {}).get("federation")
    if not isinstance(record, Mapping):
        return Field("Federated learning", "none: all training patients were in one place")
    sites = record["sites"]
    amounts = ", ".join(f"{site} {roles['train']}" for site, roles in sites.items())
    masked = "masked" if record["secure"] else "not masked"
    budget = record.get("epsilon")
    private = "no noise was added" if budget is None else f"epsilon {budget:.2f} at delta {record['delta']:g}"
    text = (
        f"{record['algorithm']}, over {len(sites)} sites (training patients: {amounts}); sums were {masked}, each "
        f"number rests on {record['minimum']} patients or more; {private}"
    )
    return Field("Federated learning", text, f"{MANIFEST}training.federation")


def _uncalibrated(facts: Facts) -> str:
    method = facts.tool.calibration
    if not method:
        return "the tool asks for none"
    return facts.manifest.fitted.left_out.get("calibration", f"{method} could not be fitted to the select patients")


def _chosen(training: TrainingRecord) -> str:
    """Say how the epoch was chosen whose weights count, and what the weights are."""
    selection, epoch = training.selection or SelectionRecord(), training.best_epoch
    average = selection.moving_average
    averaged = f", a moving average over about {average:g} epochs" if average else ""
    if selection.refit is not None:
        return (
            f"none: the patients of training and model selection trained together; {_weights(training)}{averaged}, "
            f"with the lowest loss over {selection.refit} parts of them, each predicted by a network of the others; "
            "these networks also gave the select patients' scores"
        )
    if epoch is None:
        return f"weights of the last epoch{averaged}: no validation, of {training.epochs} epochs"
    which = "those with the" if training.averaged_epochs else "the"
    return f"{_weights(training)}{averaged}, {which} lowest loss on the select patients, of {training.epochs} epochs"


def _weights(training: TrainingRecord) -> str:
    numbers = ", ".join(map(str, sorted(training.best_epochs)))
    return f"mean of the weights of epochs {numbers}" if training.averaged_epochs else f"weights of epoch {numbers}"


def _balance(data: Mapping[str, JsonValue]) -> str:
    balance = data.get("balance")
    if balance is None:
        return not_examined("not recorded")
    words = {"none": "none: classes as in the cohort", "loss": "class weights in the loss", "sampling": "by sampling"}
    return words.get(str(balance), str(balance))


def _most_tiles(max_tiles: JsonValue) -> str:
    if max_tiles is None:
        return "no limit"
    return f"{max_tiles} in training, drawn anew each epoch; no limit in prediction"


_NO_GATE = "the tool asks for no check of novelty"


def _fewest(facts: Facts) -> str:
    novelty = facts.manifest.fitted.novelty
    return not_applicable(_NO_GATE) if novelty is None else str(novelty.min_tiles)


def _gate(facts: Facts) -> str:
    novelty = facts.manifest.fitted.novelty
    if novelty is None:
        return not_applicable(_NO_GATE)
    tiles = f"fewer than {novelty.min_tiles} tiles"
    far = f", or features too far from those of {novelty.train} training bags" if novelty.features else ""
    return f"a result is withheld for {tiles}{far}; whoever made the features must detect blur, pen and folds"


def _abstention(facts: Facts) -> str:
    abstentions = [decision.between for decision in facts.manifest.fitted.decisions if decision.between is not None]
    abstentions = list(dict.fromkeys(abstentions))
    if facts.manifest.fitted.novelty:
        abstentions.append("withheld")
    return ", ".join(abstentions) or not_applicable("the rule calls every patient, and there is no check of novelty")


def _bag(bag: str) -> str:
    if bag == "patient":
        return "the tiles of all slides form one bag"
    return "each slide is scored; a patient's scores are averaged"


def _clinical(facts: Facts) -> str:
    covariates = facts.manifest.covariates
    if covariates is None:
        return not_applicable("the model reads tiles alone")
    how = "added to the logits" if covariates.fusion == "late" else "they also gate the bag's embedding"
    names = ", ".join([*covariates.numeric, *covariates.categorical])
    return f"{names}; {how}; numbers are standardised on training patients, missing values have an indicator"


def _size(value: float | None, unit: str) -> str:
    return not_stated() if value is None else f"{value:g} {unit}"
