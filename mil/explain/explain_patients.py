"""Explain a checkpoint's predictions: patient by patient, from feature files."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.cohort.columns import Columns
from mil.errors import CohortError, ConfigError, FeatureError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import DEFAULT, MethodOptions, Scored, Scorer, scorers_of
from mil.explain.reference_tile import ReferenceTile, reference_of
from mil.explain.scan_resolutions import ScanFolder, place_by_scans
from mil.explain.tile_scores import Array, ExplainedOutput, PatientScores, SlideScores, TilePlaces
from mil.features.batches import BagDataset, Draw
from mil.features.formats import Reading
from mil.features.joined_store import open_store
from mil.features.places import SlidePlaces
from mil.features.store import FeatureStore
from mil.inference.bad_slides import OnBad, naming_the_option, without_bad_slides
from mil.inference.ensemble import same_tool
from mil.inference.forward import read_large
from mil.inference.predict import cohort_of, expected_geometry
from mil.models.mil_model import MILModel
from mil.progress import counted

IN_PIECES = frozenset({DEFAULT, "attention"})
"""Methods that read the tiles of a bag one after the other."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is explained, and how.

    Attributes:
        methods: Names of methods, the one shown first in front.
        output: Name of the only output to explain; None explains all.
        patients: The only patients to explain; None explains all.
        options: Of the methods.
        on_bad: What slides that cannot be read are: an error, or left out with a warning.
        max_tiles: Largest number of tiles of a bag, taken at equal steps; None takes all of bags for which there are
            memory and time, 0 tries to take all of every bag. The outputs are then those for these tiles.
        is_part: Whether `patients` are a part of those who are explained: of a part all slides may be left out.
    """

    methods: tuple[str, ...] = (DEFAULT,)
    output: str | None = None
    patients: Collection[str] | None = None
    options: MethodOptions = field(default_factory=MethodOptions)
    on_bad: OnBad = "error"
    max_tiles: int | None = None
    is_part: bool = False


@dataclass(frozen=True, eq=False)
class Cohort:
    """The bags of the patients to explain.

    Attributes:
        store: Their feature files.
        bags: One row a bag: `patient` and `slides`.
        dataset: The bags, in the order of `bags`.
    """

    store: FeatureStore
    bags: pd.DataFrame
    dataset: BagDataset

    def patients(self) -> list[str]:
        """Return the patients by their names: parts of a cohort then follow each other in any unit of bags."""
        return sorted(set(self.bags["patient"]))


def explain_patients(
    checkpoints: Sequence[Checkpoint],
    features: Path,
    cohort: Path | None = None,
    slides: Path | None = None,
    request: Request | None = None,
    reading: Reading | None = None,
    columns: Columns | None = None,
    scans: ScanFolder | None = None,
) -> Iterator[PatientScores]:
    """Yield the explanation of each patient, or of each slide without a cohort.

    Several checkpoints of one tool, such as folds or seeds, give the mean of their scores and how far they disagree.

    Args:
        checkpoints: The models.
        features: Folder of feature files.
        cohort: Table of patients and slides.
        slides: Table of slides, for a cohort table with one row for each patient.
        request: What is explained, and how.
        reading: How files that leave it open are read; None reads them as in training.
        columns: What the tables call patients, slides and resolutions; None looks for common names.
        scans: The scans of the slides, which state the resolution of slides whose table does not.

    Raises:
        ConfigError: a method or an output that the model does not have.
        MilError: features or cohort cannot be read or do not fit the tool.
    """
    request = request or Request()
    if len(checkpoints) > 1:
        same_tool(checkpoints)
    scorers = scorers_of(request.methods)
    where = (features, cohort, slides, request.patients, reading, request.on_bad, columns, scans, request.max_tiles)
    cohorts = [read_bags(member, *where, may_be_empty=request.is_part) for member in checkpoints]
    references = [reference_of(member, cohorts[0].dataset) for member in checkpoints]
    models = [explained_model(member, at) for member, at in zip(checkpoints, references, strict=True)]
    check_output(models[0], request.output)
    patients = cohorts[0].patients()
    for patient in counted(patients, "explaining patients", len(patients)):
        members = [
            explain_patient(model, read, patient, scorers, request) for model, read in zip(models, cohorts, strict=True)
        ]
        scores = members[0] if len(members) == 1 else combined(members)
        yield replace(scores, reference=references[0].mean_of)


def explained_model(checkpoint: Checkpoint, reference: ReferenceTile) -> ExplainedModel:
    """Return a checkpoint as the methods see it."""
    return ExplainedModel(checkpoint.model.eval(), checkpoint.endpoint, reference.features)


def check_output(model: ExplainedModel, output: str | None) -> None:
    """Check that the model has this output.

    Raises:
        ConfigError: it has not.
    """
    names = [each.name for each in model.outputs]
    if output is not None and output not in names:
        raise ConfigError(f"--output {output}: no such output, expected one of {', '.join(names)}")


def read_bags(
    checkpoint: Checkpoint,
    features: Path,
    cohort: Path | None,
    slides: Path | None,
    patients: Collection[str] | None = None,
    reading: Reading | None = None,
    on_bad: OnBad = "error",
    columns: Columns | None = None,
    scans: ScanFolder | None = None,
    max_tiles: int | None = None,
    may_be_empty: bool = False,
) -> Cohort:
    """Return the bags of the patients, as predictions of this checkpoint read them; arguments as `explain_patients`.

    Files of other patients are not looked at: they may be missing.

    Raises:
        CohortError: a patient to explain is not in the table.
        MilError: features or cohort cannot be read or do not fit the tool, or tiles lie outside their scan.
    """
    expected = expected_geometry(checkpoint)
    store = open_store(features, checkpoint.encoder, (), reading or checkpoint.reading, expected)
    everyone = cohort_of(store, cohort, slides, checkpoint, columns)
    if patients is not None:
        if missing := sorted(set(patients) - set(everyone.table["patient"])):
            raise CohortError(f"--patients: {missing[0]} is not among the {len(everyone.patients)} patients")
        everyone = everyone.only(everyone.table.loc[everyone.table["patient"].isin(set(patients)), "slide"])
    table, _ = without_bad_slides(everyone, store, on_bad, may_be_empty=may_be_empty)
    names = list(table.table["slide"])
    if not names:
        nobody = pd.DataFrame({"bag": [], "patient": [], "slides": []})
        return Cohort(store, nobody, BagDataset(store, [], torch.zeros(0)))
    with naming_the_option(on_bad):
        store.resolve(names).require()
    if scans is not None:
        place_by_scans(store, scans, names)
    bags = table.bags(checkpoint.manifest.data.bag)
    covariates = checkpoint.covariates
    encoded = None if covariates is None else covariates.encode(table.patients.loc[bags["patient"]])
    dataset = BagDataset(
        store, list(bags["slides"]), torch.zeros(len(bags)), covariates=encoded, at_most=max_tiles or None
    )
    return Cohort(store, bags, dataset)


def explain_patient(
    model: ExplainedModel, cohort: Cohort, patient: str, scorers: Sequence[Scorer], request: Request
) -> PatientScores:
    """Return the explanation of one patient by one model; a patient's slides may be one bag or several."""
    rows = np.flatnonzero(cohort.bags["patient"] == patient)
    slides, logits = list[SlideScores](), list[Tensor]()
    errors, notes = dict[tuple[str, str], Array](), dict[str, str]()
    for row in map(int, rows):
        in_pieces = model.model if _in_pieces(scorers, request.options) else None
        bag = read_bag(cohort.dataset, row, in_pieces, unlimited=request.max_tiles == 0)
        if bag.coords is None and model.model.reads_places():
            names = ", ".join(f"'{name}'" for name in cohort.dataset.slides[row])
            raise FeatureError(f"slide {names}: no coordinates, and {type(model.model).__name__} reads where tiles lie")
        logits.append(model.logits(bag))
        scored = {scorer.METHOD.name: scorer.score(model, bag, request.options) for scorer in scorers}
        pieces = _by_slide(cohort, row, scored)
        slides += [piece for piece, _ in pieces]
        errors |= {key: error for _, of_slide in pieces for key, error in of_slide.items()}
        notes |= {name: each.note for name, each in scored.items() if each.note}
    values = model.outputs_of(torch.cat(logits).mean(0, keepdim=True))[0].tolist()
    outputs = tuple(
        ExplainedOutput(name=each.name, meaning=each.meaning, unit=each.unit, value=value)
        for each, value in zip(model.outputs, values, strict=True)
    )
    everything = PatientScores(
        patient=patient,
        outputs=outputs,
        methods=tuple(scorer.METHOD for scorer in scorers),
        slides=tuple(slides),
        errors=errors,
        notes=notes,
    )
    return everything if request.output is None else only_output(everything, request.output)


def read_bag(dataset: BagDataset, row: int, model: MILModel | None = None, unlimited: bool = False) -> Bags:
    """Return one bag of a data set, in single precision; a large one in pieces, if that is enough for the model.

    Raises:
        ResourceError: A large bag, and the model has neither memory nor time enough for it; `unlimited` tries it.
    """
    is_small = model is None or not dataset.is_large(row)
    batch = dataset[[Draw(row)]] if model is None or is_small else read_large(model, dataset, row, unlimited)
    return batch.bags.cast(torch.float32)


def _in_pieces(scorers: Sequence[Scorer], options: MethodOptions) -> bool:
    """Return whether tiles are scored one by one, for which they need not all be in memory."""
    return not options.group and all(scorer.METHOD.name in IN_PIECES for scorer in scorers)


def only_output(scores: PatientScores, output: str) -> PatientScores:
    """Return the explanation with one of its outputs."""
    at = [each.name for each in scores.outputs].index(output)
    cut = slice(at, at + 1)
    slides = tuple(
        replace(slide, scores={name: values[:, cut] for name, values in slide.scores.items()})
        for slide in scores.slides
    )
    return replace(
        scores,
        outputs=scores.outputs[cut],
        slides=slides,
        disagreement={key: values[:, cut] for key, values in scores.disagreement.items()},
        errors={key: values[:, cut] for key, values in scores.errors.items()},
    )


def combined(members: Sequence[PatientScores]) -> PatientScores:
    """Return the mean of the scores of several models, and the standard deviation between them."""
    first = members[0]
    slides, disagreement = list[SlideScores](), dict[tuple[str, str], Array]()
    for at, slide in enumerate(first.slides):
        stacks = {name: np.stack([member.slides[at].scores[name] for member in members]) for name in slide.scores}
        slides.append(replace(slide, scores={name: stack.mean(0) for name, stack in stacks.items()}))
        disagreement |= {(slide.slide, name): stack.std(0, ddof=1) for name, stack in stacks.items()}
    errors = {
        key: np.sqrt(np.stack([member.errors[key] ** 2 for member in members]).sum(0)) / len(members)
        for key in first.errors
    }
    outputs = tuple(
        replace(output, value=float(np.mean([member.outputs[at].value for member in members])))
        for at, output in enumerate(first.outputs)
    )
    return replace(first, outputs=outputs, slides=tuple(slides), disagreement=disagreement, errors=errors)


def _by_slide(
    cohort: Cohort, row: int, scored: dict[str, Scored]
) -> list[tuple[SlideScores, dict[tuple[str, str], Array]]]:
    """Return the scores of a bag slide by slide, and their standard errors."""
    pieces, start = [], 0
    for name, tiles in zip(cohort.dataset.slides[row], cohort.dataset.tiles_read(row), strict=True):
        end = start + len(tiles)
        rows = slice(start, end)
        places = cohort.store.places(name)
        drawn = None if places is None else _tile_places(places, tiles)
        scores = {method: each.scores[rows].numpy() for method, each in scored.items()}
        errors = {(name, method): each.error[rows].numpy() for method, each in scored.items() if each.error is not None}
        mpp = None if places is None else places.mpp
        pieces.append((SlideScores(slide=name, places=drawn, scores=scores, mpp=mpp), errors))
        start = end
    return pieces


def _tile_places(places: SlidePlaces, tiles: NDArray[np.int64]) -> TilePlaces:
    return TilePlaces(x=places.x[tiles], y=places.y[tiles], width=places.width[tiles], height=places.height[tiles])
