"""Cases of a run: its report patients with their explanations, the truth of simulated slides, and the scans."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from mil import checkpoint
from mil.cards import RESEARCH, SIMULATED
from mil.checkpoint import Checkpoint
from mil.errors import ConfigError
from mil.explain.explain_patients import Request, explain_patients, read_bag
from mil.explain.pages.beliefs import beliefs, faithfulness_tables
from mil.explain.pages.case import Case, Tissue, Verdict
from mil.explain.pages.scan_views import scan_views
from mil.explain.scans import Scans
from mil.explain.tile_scores import PatientScores, SlideScores
from mil.fitted.withholding import RowBags, reasons
from mil.inference.forward import mean
from mil.report.sections.explanations import Faithfulness
from mil.runs.cases import Answer, answers
from mil.runs.describe import page_title
from mil.runs.run import Run
from mil.runs.run_bags import bags_of_run, on_bad_of, patients_by_fold
from mil.runs.states import checkpoints_in
from mil.storage import read_bytes
from mil.study.source import StudySource, source_of

CASES = "cases"
"""Folder of the pages of cases within an explanation."""
TELLING = "biomarker"
"""What names of simulated tissue contain that carries what is predicted."""


def answers_of(run: Run) -> dict[str, Answer]:
    """Return what a run's models say of its report patients, each as in the first fold that reports the patient."""
    return answers(run.endpoint, run.states, run.evaluation().reported)


def verdict(answer: Answer) -> Verdict:
    """Return the verdict on a patient that is to be looked at first."""
    return min((call.verdict for call in answer.calls), key=lambda each: each.place, default=Verdict.OPEN)


def telling_patients(answered: Mapping[str, Answer], most: int) -> list[str]:
    """Return report patients to look at: of each verdict in turn the one whose number lies farthest from the cut.

    Args:
        answered: Answers by patient.
        most: How many.
    """
    by_verdict: dict[Verdict, list[str]] = {}
    for patient, answer in sorted(answered.items(), key=lambda each: (-_margin(each[1]), each[0])):
        by_verdict.setdefault(verdict(answer), []).append(patient)
    queues = [by_verdict[each] for each in (Verdict.RIGHT, *Verdict) if each in by_verdict]
    queues = list({id(queue): queue for queue in queues}.values())
    chosen: list[str] = []
    while len(chosen) < min(most, len(answered)):
        chosen += [queue.pop(0) for queue in queues if queue]
    return chosen[:most]


def _margin(answer: Answer) -> float:
    return max((call.margin for call in answer.calls if call.margin is not None), default=0.0)


def cases_of_run(
    run: Run,
    explained: Iterable[PatientScores],
    faithfulness: Faithfulness | None = None,
    truth: Path | None = None,
    withheld: Mapping[str, str] | None = None,
    scans: Scans | None = None,
    folder: Path | None = None,
) -> Iterator[Case]:
    """Yield the case of each explained patient.

    Args:
        run: The run, with its predictions.
        explained: The explanations.
        faithfulness: What was measured of the methods; None where it was not.
        truth: Folder of a simulated cohort, with the kind of every tile.
        withheld: Why a result is withheld, by patient, see `withheld_patients`.
        scans: The scans of the slides.
        folder: Folder of the pages, where pictures of scans are written; without it scans are not shown.
    """
    answered = answers_of(run)
    for scores in explained:
        answer = answered.get(scores.patient, Answer(calls=(), numbers={}))
        yield Case(
            scores=scores,
            title=page_title(run.tool),
            origin=f"{run.model.rpartition('.')[2]}, encoder {run.encoder}",
            banner=SIMULATED if run.simulated else RESEARCH,
            calls=answer.calls,
            numbers=answer.numbers,
            beliefs=beliefs(faithfulness),
            faithfulness=faithfulness_tables(faithfulness),
            withheld=(withheld or {}).get(scores.patient, ""),
            tissue={} if truth is None else tissues(scores.slides, truth),
            scans={} if scans is None or folder is None else scan_views(scores, scans, folder),
        )


def tissues(slides: Sequence[SlideScores], truth: Path) -> dict[str, Tissue]:
    """Return what the tiles of simulated slides truly are, by slide; slides without coordinates are left out."""
    listed = {slide.slide: _tissue(slide, truth / "phenotypes" / f"{slide.slide}.csv") for slide in slides}
    return {name: tissue for name, tissue in listed.items() if tissue is not None}


def _tissue(slide: SlideScores, path: Path) -> Tissue | None:
    if slide.places is None or not path.is_file():
        return None
    table = pd.read_csv(BytesIO(read_bytes(path)), dtype={"phenotype": str})
    if len(table) != len(slide):
        return None
    names, kinds = np.unique(table["phenotype"].to_numpy(dtype=str), return_inverse=True)
    telling = frozenset(str(name) for name in names if TELLING in str(name))
    return Tissue(names=tuple(map(str, names)), kinds=kinds.astype(np.int64), telling=telling)


def explained_patients(
    run: Run, patients: Sequence[str], request: Request, scans: Scans | None = None
) -> Iterator[PatientScores]:
    """Explain report patients of a run, each by the model of the first fold that reports the patient.

    Args:
        run: The run, with its checkpoints.
        patients: Who is explained; they come in the order of their folds.
        request: Methods and outputs.
        scans: The scans of the slides, which state resolutions.

    Raises:
        MilError: the features of the run cannot be read any more.
    """
    for loaded, source, names in _by_fold(run, patients):
        of_fold = replace(request, patients=names, on_bad=on_bad_of(source, request.on_bad))
        where = (source.features, source.cohort, source.slides)
        yield from explain_patients([loaded], *where, of_fold, source.reading, source.columns, scans)


def withheld_patients(run: Run, patients: Sequence[str]) -> dict[str, str]:
    """Return why predictions for report patients would be withheld, by patient; without those that would be given.

    The predictions of a run are evaluated all; `mil predict` withholds those of slides unlike those of training.

    Args:
        run: The run, with its checkpoints.
        patients: Who is judged.

    Raises:
        MilError: the features of the run cannot be read any more.
    """
    withheld = dict[str, str]()
    for loaded, source, names in _by_fold(run, patients):
        novelty = loaded.manifest.fitted.novelty
        if novelty is None:
            continue
        cohort = bags_of_run(loaded, source, names)
        rows = pd.Index(cohort.patients())
        bags = RowBags(
            row=rows.get_indexer(pd.Index(cohort.bags["patient"])),
            names=[", ".join(slides) for slides in cohort.dataset.slides],
            tiles=np.asarray(cohort.dataset.sizes, dtype=np.int64),
            means=np.stack([mean(read_bag(cohort.dataset, row)).numpy() for row in range(len(cohort.bags))]),
        )
        by_row = reasons(novelty, bags, len(rows))
        withheld |= {str(name): reason for name, reason in zip(rows, by_row, strict=True) if reason}
    return withheld


def _by_fold(run: Run, patients: Sequence[str]) -> Iterator[tuple[Checkpoint, StudySource, list[str]]]:
    """Yield the checkpoint of each fold with the patients whom it is the first to report."""
    if run.config is None:
        raise ConfigError(f"{run.folder}: holds no config.yaml, expected a run")
    source, places = source_of(run.config), checkpoints_in(run.folder)
    for fold, names in patients_by_fold(run.evaluation().reported, patients):
        yield checkpoint.load(places[fold]), source, names
