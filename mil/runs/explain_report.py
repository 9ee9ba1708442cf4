"""Explain the report patients of a run: tables, pages of cases, and maps of a few patients for its report and cards.

The steps are functions of a `RunExplanation`: one process does them in turn, and jobs of a cluster do them for parts of
the patients (`mil.cluster.sharded_run_explanation`).
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mil import files
from mil.cards import RESEARCH, SIMULATED
from mil.explain.explain_patients import Request
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult, Faithfulness
from mil.explain.measure_faithfulness import faithfulness_of
from mil.explain.pages import INDEX, write_index, write_pages
from mil.explain.pages.cases_index import IndexRow
from mil.explain.pages.example_maps import FIGURE, MOST, example_maps
from mil.explain.tile_scores import PatientScores
from mil.explain.writers import ExplanationFiles, FileChoices
from mil.report.figures.style import save, styled
from mil.runs.describe import add_measured, page_title
from mil.runs.faithfulness_run import MOST as MEASURED
from mil.runs.faithfulness_run import measure_patients, measured_patients
from mil.runs.measured_sections import EXPLANATION
from mil.runs.run import Run, open_run
from mil.runs.run_bags import in_order_of_folds
from mil.runs.run_cases import (
    CASES,
    answers_of,
    cases_of_run,
    explained_patients,
    telling_patients,
    withheld_patients,
)
from mil.study.source import source_of

logger = logging.getLogger(__name__)
ALSO_MEASURED = ("contribution", "attention")
"""Methods that are measured in any case, as far as the model has them: a card says which map can be believed."""


@dataclass(frozen=True, kw_only=True)
class RunExplanation:
    """What is explained of a run; plain values, which jobs of a cluster are sent.

    Attributes:
        folder: The run.
        request: What is explained, and how.
        place: The folder to write.
        patients: Who is explained, those first of whom something can be learned.
        cases: Whether pages are written.
        choices: Which files for other programs are written, and where the scans are.
        ordered: The same patients in the order of the tables: by fold, and by name.
        to_measure: On whom it is measured how far the maps can be believed; nobody: it is not measured.
    """

    folder: Path
    request: Request
    place: Path
    patients: tuple[str, ...]
    cases: bool
    choices: FileChoices
    ordered: tuple[str, ...]
    to_measure: tuple[str, ...]

    @property
    def measuring(self) -> Request:
        """What is measured: the methods that are explained, and those that a card compares."""
        return replace(self.request, methods=tuple(dict.fromkeys((*self.request.methods, *ALSO_MEASURED))))

    def explaining(self, faithfulness: Faithfulness | None) -> Request:
        """Return what is explained: a page shows every map of which is known whether it can be believed."""
        measured = [] if faithfulness is None or not self.cases else [each.method for each in faithfulness.maps]
        return replace(self.request, methods=tuple(dict.fromkeys((*self.request.methods, *measured))))


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What is left of explanations whose files are written.

    Attributes:
        outputs: Names of what was explained.
        reference: What the reference tile is the mean of.
        rows: Of the index of the pages; none without pages.
    """

    outputs: tuple[str, ...]
    reference: str
    rows: tuple[IndexRow, ...]


def explain_report(
    folder: Path,
    request: Request | None = None,
    out: Path | None = None,
    most: int | None = None,
    cases: bool = False,
    choices: FileChoices | None = None,
    faithfulness: Faithfulness | None = None,
    *,
    measure: int = MEASURED,
) -> Path:
    """Explain report patients of a run and write tables, `explain.json` and, on request, a page for each.

    In the run's own folder `explain` the maps of a few patients and the faithfulness also enter the run's report and
    cards.

    Returns:
        The index of the pages, or the folder without pages.

    Args:
        folder: The run.
        request: What is explained, and how.
        out: Where; by default the folder `explain` of the run.
        most: Explain no more patients, some of each verdict; None explains all.
        cases: Whether pages are written.
        choices: Which files for other programs are written, and where the scans are.
        faithfulness: What was measured of the methods; None measures it.
        measure: Measure how far the maps can be believed on no more report patients; 0 measures nothing.

    Raises:
        ConfigError: if the folder holds no finished run.
        MilError: if the features of the run cannot be read any more.
    """
    run = open_run(folder)
    work = explanation_of(run, request, out, most, cases, choices, 0 if faithfulness is not None else measure)
    if work.to_measure:
        faithfulness = faithfulness_of(measure_patients(run, work.to_measure, work.measuring))
    record = Record(example_patients(run, work))
    explained = write_explanations(run, work, work.ordered, work.place, faithfulness, record)
    return finish_explanation(run, work, explained, faithfulness, record.examples())


def explanation_of(
    run: Run,
    request: Request | None = None,
    out: Path | None = None,
    most: int | None = None,
    cases: bool = False,
    choices: FileChoices | None = None,
    measure: int = MEASURED,
) -> RunExplanation:
    """Return what is explained of a run; arguments as `explain_report`."""
    request, answered = request or Request(), answers_of(run)
    chosen = list(answered) if request.patients is None else [name for name in answered if name in request.patients]
    patients = telling_patients({name: answered[name] for name in chosen}, len(chosen) if most is None else most)
    reported = run.evaluation().reported
    return RunExplanation(
        folder=run.folder,
        request=request,
        place=out or run.folder / EXPLANATION,
        patients=tuple(patients),
        cases=cases,
        choices=choices or FileChoices(),
        ordered=tuple(in_order_of_folds(reported[reported.index.isin(patients)])),
        to_measure=tuple(measured_patients(run, request, measure)) if measure else (),
    )


def example_patients(run: Run, work: RunExplanation) -> list[str]:
    """Return the patients of the figure."""
    answered = answers_of(run)
    return telling_patients({name: answered[name] for name in work.patients}, MOST)


class Record:
    """What is kept of explanations that pass: a few patients for the figure, and what is explained."""

    def __init__(self, examples: Sequence[str] = ()) -> None:
        """Begin; `examples` are the patients of the figure in the order in which they are shown."""
        self.outputs: tuple[str, ...] = ()
        self.reference = ""
        self._names = list(examples)
        self._examples = dict[str, PatientScores]()

    def passing(self, explained: Iterable[PatientScores], tables: ExplanationFiles) -> Iterator[PatientScores]:
        """Yield explanations after their files were written."""
        for scores in explained:
            tables.write(scores)
            self.outputs = tuple(each.name for each in scores.outputs)
            self.reference = scores.reference
            if scores.patient in self._names:
                self._examples[scores.patient] = scores
            yield scores

    def examples(self) -> list[PatientScores]:
        """Return the patients of the figure in the order in which they were chosen."""
        return [self._examples[name] for name in self._names if name in self._examples]


def write_explanations(
    run: Run,
    work: RunExplanation,
    patients: Sequence[str],
    folder: Path,
    faithfulness: Faithfulness | None,
    record: Record,
) -> Explained:
    """Explain patients and write their tables, the files of their slides, and their pages.

    Args:
        run: The run.
        work: What is explained of it.
        patients: Who: all of `work.ordered`, or a part.
        folder: Where.
        faithfulness: What was measured of the methods; None where nothing was.
        record: Keeps the patients of the figure.

    Raises:
        MilError: if the features of the run cannot be read any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, request = list[IndexRow](), work.explaining(faithfulness)
    with work.choices.files(folder) as tables:
        scans = tables.options.scans
        explained = record.passing(explained_patients(run, patients, request, scans), tables)
        if work.cases:
            withheld, pages = withheld_patients(run, patients), folder / CASES
            cases = cases_of_run(run, explained, faithfulness, _truth(run), withheld, scans, pages)
            rows += write_pages(pages, cases, work.patients)
        else:
            for _ in explained:  # the tables are written on the way
                pass
    for sentence in tables.options.warnings:
        logger.warning("%s", sentence)
    return Explained(outputs=record.outputs, reference=record.reference, rows=tuple(rows))


def finish_explanation(
    run: Run,
    work: RunExplanation,
    explained: Explained,
    faithfulness: Faithfulness | None,
    examples: Sequence[PatientScores] | None = None,
) -> Path:
    """Write the index, the figure and, last, `explain.json`; return the index of the pages, or the folder.

    Args:
        run: The run.
        work: What is explained of it.
        explained: What is left of all its patients.
        faithfulness: What was measured of the methods; None where nothing was.
        examples: Explanations of the patients of the figure; None explains them.

    Raises:
        MilError: if the features of the run cannot be read any more.
    """
    request, place = work.explaining(faithfulness), work.place
    if examples is None:
        names = example_patients(run, work)
        by_name = {scores.patient: scores for scores in explained_patients(run, names, request, work.choices.opened())}
        examples = [by_name[name] for name in names if name in by_name]
    if work.cases:
        banner = SIMULATED if run.simulated else RESEARCH
        write_index(place / CASES, explained.rows, page_title(run.tool), banner)
    _draw_examples(run, examples, place, _truth(run))
    result = ExplainResult(
        tool=run.tool.name,
        model=run.model,
        simulated=run.simulated,
        methods=request.methods,
        outputs=explained.outputs,
        reference=explained.reference,
        patients=work.patients,
        max_tiles=request.max_tiles or None,
        faithfulness=faithfulness,
    )
    files.write(place / EXPLAIN, result.model_dump_json(indent=2) + "\n")
    if place == run.folder / EXPLANATION:
        add_measured(run.folder)
    return place / CASES / INDEX if work.cases else place


def _truth(run: Run) -> Path | None:
    """Return the folder of the simulated cohort of a run; None for real data."""
    return None if run.config is None or not run.simulated else source_of(run.config).truth


def _draw_examples(run: Run, examples: Sequence[PatientScores], place: Path, truth: Path | None) -> None:
    """Draw maps of a few patients as `tile_maps.png` and `.svg`; nothing where no tile has a place."""
    with styled():
        figure = example_maps(list(cases_of_run(run, examples, None, truth)))
        if figure is not None:
            save(figure, place, FIGURE)
