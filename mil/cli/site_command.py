"""`mil site`: whether a run's result is the tissue's or the site's."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mil import files
from mil.cli.compare_command import WIDTH
from mil.report.figures.site_plot import draw_site
from mil.report.figures.style import save, styled
from mil.report.page.words import estimate, named
from mil.runs.designs import compare_designs
from mil.runs.run import open_run
from mil.runs.site import audit
from mil.stats.site_signature import NAMES


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
    opened = open_run(run)
    designs = None if preserved is None else compare_designs(opened, open_run(preserved), resamples)
    found = audit(opened, features, resamples) | {"designs": designs}
    console = Console(width=max(WIDTH, Console().width), soft_wrap=True)
    for table in _tables(found):
        console.print(table)
    for line in _lines(found):
        sys.stdout.write(f"{line}\n")
    if out is not None:
        files.write_json(out / "site.json", found)
        with styled():
            save(draw_site(found), out, "site")


def _tables(found: Mapping[str, Any]) -> Iterator[Table]:
    known, whose = found["patients"], found["model"].rpartition(".")[2]
    who = f"{known['known']} patients of {len(known['sites'])} sites"
    shown = _empty(f"{found['tool']}, {whose}, {found['encoder']}, fold {found['fold']}, {who}, by {found['site']}")
    for head in ("told by", "n", "sites", "balanced accuracy", "chance", "minus the label's", "macro AUROC"):
        shown.add_column(head, no_wrap=True)
    for name, words in NAMES.items():
        if name in found["told_by"]:
            shown.add_row(words, *_row(found["told_by"][name], found["beyond_label"].get(name)))
    yield shown
    if designs := found["designs"]:
        beside = _empty(designs["metric"])
        for head in ("folds", "n", named(designs["metric"])):
            beside.add_column(head, no_wrap=True)
        for name, words in (("random", "random"), ("preserved", "whole sites"), ("difference", "difference")):
            beside.add_row(words, str(designs[name]["n"]), estimate(designs[name]))
        yield beside


def _empty(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")


def _row(told: Mapping[str, Any], more: Mapping[str, Any] | None) -> Iterator[str]:
    yield from (str(told["n"]), str(told["sites"]))
    if "reason" in told:
        yield estimate(told)
        return
    accuracy = told["balanced_accuracy"]
    yield from (estimate(accuracy), f"{accuracy['chance']:.3f}")
    yield estimate(more["balanced_accuracy"]) if more else ""
    yield estimate(told["macro_auroc"])


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield from found["words"].values()
    if within := found["within_sites"]:
        yield f"{named(within['metric'])} within sites, the mean over them: {estimate(within)}, n {within['n']}"
    if found["designs"]:
        yield found["designs"]["words"]
