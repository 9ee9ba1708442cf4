"""`mil site`: whether a run's result is the tissue's or the site's."""

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from mil import files
from mil.cards import SIMULATED
from mil.cli.compare_command import WIDTH
from mil.cli.terminal_lines import add_row, print_tables, terminal_width, write_lines
from mil.errors import printable
from mil.features.feature_folders import paths_of
from mil.output_places import check_output_folder
from mil.report.figures.style import save, styled
from mil.report.page.words import named
from mil.runs.designs import compare_designs
from mil.runs.run import open_run
from mil.runs.run_inputs import warn_of_changes, with_recorded
from mil.runs.site import SiteAudit, audit
from mil.runs.site_plot import draw_site
from mil.stats.site_signature import NAMES, SitePredictability

SITE = "site.json"


def site(
    run: Path,
    preserved: Path | None = None,
    out: Path | None = None,
    features: Path | None = None,
    resamples: int | None = None,
) -> None:
    """Prints who tells the site, and the gap between random folds and folds of whole sites; `out` gets files of them.

    Args:
        run: Folder of a finished run.
        preserved: Of another of the same tool and cohort, with the other of the two designs.
        out: For `site.json` and the figure `site`; nothing is written without it.
        features: Where the feature files lie now.
        resamples: Of every bootstrap; the run's own where left out.

    Raises:
        MilError: a folder that is no such run, a cohort or features that are not as then, or fewer than two sites.
    """
    if out is not None:
        runs = [run] if preserved is None else [run, preserved]
        check_output_folder(out, [*with_recorded(runs), *paths_of(features)], SITE)
    opened = open_run(run)
    warn_of_changes(run)
    designs = None if preserved is None else compare_designs(opened, open_run(preserved), resamples)
    result = audit(opened, features, resamples).model_copy(update={"designs": designs})
    if result.simulated:
        sys.stderr.write(f"{SIMULATED}\n")
    print_tables(*_tables(result), width=terminal_width(WIDTH))
    write_lines(*_lines(result))
    if out is not None:
        files.write_json(out / SITE, result.model_dump(mode="json"))
        with styled():
            save(draw_site(result), out, "site")


def _tables(result: SiteAudit) -> Iterator[Table]:
    patients = f"{result.patients.with_site} patients of {len(result.patients.sites)} sites"
    model = result.model.rpartition(".")[2]
    table = _empty(f"{result.tool}, {model}, {result.encoder}, fold {result.fold}, {patients}, by {result.site}")
    for head in ("predicted from", "n", "sites", "balanced accuracy", "chance", "minus the label's", "macro AUROC"):
        table.add_column(head, no_wrap=True)
    for name, words in NAMES.items():
        if name in result.predicted_from:
            add_row(table, (words, *_row(result.predicted_from[name], result.beyond_label.get(name))))
    yield table
    if (designs := result.designs) is not None:
        table = _empty(designs.metric)
        for head in ("folds", "n"):
            table.add_column(head, no_wrap=True)
        table.add_column(named(designs.metric), overflow="fold")  # the reason why there is no number may be long
        for words, estimate in (
            ("random", designs.random),
            ("whole sites", designs.preserved),
            ("difference", designs.difference),
        ):
            add_row(table, (words, estimate.n, estimate))
        yield table


def _empty(title: str) -> Table:
    return Table(title=printable(title), title_justify="left", box=None, pad_edge=False, header_style="bold")


def _row(result: SitePredictability, gain: SitePredictability | None) -> Iterator[str]:
    yield from (str(result.n), str(result.sites))
    if result.reason is not None:
        yield f"not estimable: {result.reason}"
        return
    yield from (str(result.balanced_accuracy), f"{result.chance['balanced_accuracy']:.3f}")
    yield "" if gain is None else str(gain.balanced_accuracy)
    yield str(result.macro_auroc)


def _lines(result: SiteAudit) -> Iterator[str]:
    yield from result.sentences.values()
    if (within := result.within_sites) is not None:
        yield f"{named(str(result.metric))} within sites, the mean over them: {within.estimate.described}"
    if result.designs is not None:
        yield result.designs.sentence
