"""Explain the report patients of a run: tables, pages of cases, and maps of a few patients for its report and cards."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mil import files
from mil.explain.explain_patients import Request
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult, Faithfulness
from mil.explain.pages import INDEX
from mil.explain.pages.example_maps import FIGURE, MOST, example_maps
from mil.explain.tile_scores import PatientScores
from mil.explain.writers import ExplanationFiles, FileChoices
from mil.report.figures.style import save, styled
from mil.runs.describe import add_measured
from mil.runs.faithfulness_run import MOST as MEASURED
from mil.runs.faithfulness_run import run_faithfulness
from mil.runs.measured_sections import EXPLANATION
from mil.runs.run import Run, open_run
from mil.runs.run_cases import (
    CASES,
    answers_of,
    cases_of_run,
    explained_patients,
    telling_patients,
    withheld_patients,
    write_run_cases,
)
from mil.study.source import source_of

logger = logging.getLogger(__name__)
ALSO_MEASURED = ("contribution", "attention")
"""Methods that are measured in any case, as far as the model has them: a card says which map can be believed."""


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
    run, request, place = open_run(folder), request or Request(), out or folder / EXPLANATION
    answered = answers_of(run)
    chosen = list(answered) if request.patients is None else [name for name in answered if name in request.patients]
    patients = telling_patients({name: answered[name] for name in chosen}, len(chosen) if most is None else most)
    record = _Record(telling_patients({name: answered[name] for name in patients}, MOST))
    truth = None if run.config is None or not run.simulated else source_of(run.config).truth
    if faithfulness is None and measure:
        faithfulness = run_faithfulness(
            run, replace(request, methods=tuple(dict.fromkeys((*request.methods, *ALSO_MEASURED)))), measure
        )
    if cases and faithfulness is not None:  # a page shows every map of which is known whether it can be believed
        measured = [each.method for each in faithfulness.maps]
        request = replace(request, methods=tuple(dict.fromkeys((*request.methods, *measured))))
    place.mkdir(parents=True, exist_ok=True)
    with (choices or FileChoices()).files(place) as tables:
        explained = record.passing(explained_patients(run, patients, request, tables.options.scans), tables)
        if cases:
            withheld = withheld_patients(run, patients)
            pages, scans_given = place / CASES, tables.options.scans
            write_run_cases(run, pages, explained, patients, faithfulness, truth, withheld, scans_given)
        else:
            for _ in explained:  # the tables are written on the way
                pass
    for sentence in tables.options.warnings:
        logger.warning("%s", sentence)
    _draw_examples(run, record.examples(), place, truth)
    result = ExplainResult(
        tool=run.tool.name,
        model=run.model,
        simulated=run.simulated,
        methods=request.methods,
        outputs=record.outputs,
        reference=record.reference,
        patients=tuple(patients),
        max_tiles=request.max_tiles or None,
        faithfulness=faithfulness,
    )
    files.write(place / EXPLAIN, result.model_dump_json(indent=2) + "\n")
    if place == folder / EXPLANATION:
        add_measured(folder)
    return place / CASES / INDEX if cases else place


class _Record:
    """What is kept of explanations that pass: a few patients for the figure, and what is explained."""

    def __init__(self, examples: Sequence[str]) -> None:
        self.outputs: tuple[str, ...] = ()
        self.reference = ""
        self._names = list(examples)
        self._examples = dict[str, PatientScores]()

    def passing(self, explained: Iterator[PatientScores], tables: ExplanationFiles) -> Iterator[PatientScores]:
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


def _draw_examples(run: Run, examples: Sequence[PatientScores], place: Path, truth: Path | None) -> None:
    """Draw maps of a few patients as `tile_maps.png` and `.svg`; nothing where no tile has a place."""
    with styled():
        figure = example_maps(list(cases_of_run(run, examples, None, truth)))
        if figure is not None:
            save(figure, place, FIGURE)
