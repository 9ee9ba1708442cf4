"""report.html: one file that needs nothing else, read from top to bottom."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mil.report.page.untyped_outline import Part, part
from mil.report.page.words import named, verdict

HEADINGS: Mapping[str, tuple[str, str]] = {
    "discrimination": ("Discrimination", "How well patients with and without the finding are told apart."),
    "operating_points": ("Operating points", "What the frozen decision did; its cuts were set without these patients."),
    "calibration": ("Calibration", "Whether a predicted number means what it says."),
    "utility": ("Clinical use", "What acting on the model is worth against acting on all, on none, on what is known."),
    "survival": ("Survival", "How well risks order patients, and whether they come true."),
    "groups": ("Groups of risk", "How the groups that frozen cuts make fare."),
    "added_value": ("Added value", "What the score adds to the clinical variables."),
    "subgroups": ("Subgroups", "Every level is shown; small ones say that they cannot be estimated."),
    "conformal": ("Conformal prediction", "Sets or intervals that hold the truth as often as was asked."),
    "site": ("Sites", "The same numbers within each site, and how well the score tells the sites."),
    "baseline": ("Baseline", "A simple model of the same patients in the same folds."),
    "covariates": ("Clinical variables", "A model that knows the clinical variables alone."),
    "oracle": ("Oracle", "A perfect reader of the simulated tiles: what could be reached."),
    "looks": ("Looks at the report patients", "How often they were evaluated; every look spends some of their worth."),
}
"""Of the sections, in the order in which a reviewer reads them."""
ABSENT = {
    "discrimination": "the endpoint is a time to an event, see Survival",
    "operating_points": "the tool states no decision rule",
    "calibration": "no probability or value is there to be compared with the truth; risks until a time are in Survival",
    "utility": "the predictions hold no probability, or no risk at a horizon",
    "survival": "the endpoint is no time to an event",
    "groups": "the endpoint is no time to an event, or no fold could set a cut",
    "added_value": "the tool names no clinical variables, or no clinical table was at hand",
    "subgroups": "no clinical table was at hand, or it holds none of the subgroups",
    "conformal": "the tool asks for none",
    "site": "no clinical table with a site was at hand",
    "baseline": "no baseline was run",
    "covariates": "no model of the clinical variables was run",
    "oracle": "it exists for simulated cohorts alone",
    "looks": "they are counted in run folders alone",
}
"""Why a section may be missing."""
HOMES: Mapping[str, tuple[str, ...]] = {
    "roc": ("discrimination",),
    "precision_recall": ("discrimination",),
    "confusion": ("operating_points", "discrimination"),
    "regression": ("discrimination",),
    "kaplan_meier": ("groups", "survival"),
    "incidence": ("groups", "survival"),
    "calibration": ("calibration",),
    "calibration_horizon": ("survival",),
    "decision_curve": ("utility",),
    "subgroups": ("subgroups",),
    "learning_curve": ("fitted",),
    "leaderboard": ("baseline",),
}
"""Sections that a figure stands in: the first of them that the report has."""
CAPTIONS = {
    "roc": "ROC curve: share of positives found against share of negatives called, over all cuts",
    "precision_recall": "Precision against recall over all cuts, with the prevalence",
    "confusion": "Confusion matrix: patients of each true class by what was called",
    "regression": "Predicted against true values, and their differences against their means",
    "kaplan_meier": "Kaplan-Meier curves of the groups of risk, with the numbers at risk",
    "incidence": "Cumulative incidence of each cause in the groups of risk, with the numbers at risk",
    "calibration": "Observed against predicted probability, with the distribution of the predictions",
    "calibration_horizon": "Observed against predicted risk at each horizon",
    "decision_curve": "Decision curve: net benefit over threshold probabilities",
    "subgroups": "The main metric in each subgroup, with its interval",
    "learning_curve": "Loss and metric by epoch",
    "leaderboard": "The metric of each run, with its interval",
}
BESIDE = {"report.json": "the numbers of this page", "predictions.csv": "the predictions that they are computed from"}
"""What lies beside the page, in words."""
_PREDICTED = (
    "tool",
    "title",
    "question",
    "ground_truth",
    "intended_use",
    "out_of_scope",
    "specimen",
    "model",
    "encoder",
)
_DESIGN = ("folds", "split", "design")
_TOP = ("metrics", "fitted", "patients", "run")


@dataclass(frozen=True)
class Drawn:
    """A figure, as the page shows it."""

    name: str
    caption: str
    uri: str


@dataclass(frozen=True)
class Section:
    """One chapter of the page."""

    key: str
    intro: str
    content: Part
    figures: tuple[Drawn, ...] = ()


def html(
    report: Mapping[str, Any],
    figures: Mapping[str, bytes | Path],
    title: str,
    banner: str,
    beside: Sequence[str] = (),
) -> str:
    """The page: no script, nothing from outside, every word of the report escaped.

    Args:
        report: What `report.json` holds.
        figures: SVG or PNG by name, as `figures.draw` names them; they become images, in which nothing can run.
        title: Of the page.
        banner: What stands above everything: simulated data, research use.
        beside: Files in the page's folder that a reader goes on to, by name.
    """
    templates = Environment(
        loader=PackageLoader("mil.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = [Drawn(name, CAPTIONS.get(name, named(name)), _uri(image)) for name, image in figures.items()]
    metric = next(iter(report["metrics"]), None)
    return templates.get_template("report.html.j2").render(
        title=title,
        banner=banner,
        verdict=None if metric is None else verdict(report, metric),
        sections=sections(report, drawn),
        beside=[(name, BESIDE.get(name, name)) for name in beside],
        absent=[(HEADINGS[key][0], ABSENT[key]) for key in HEADINGS if not report.get(key)],
    )


def sections(report: Mapping[str, Any], drawn: list[Drawn]) -> list[Section]:
    """All chapters that have content, and every figure in one of them."""
    made = [
        Section("predicted", "", _facts("What is predicted", report, _PREDICTED, patients=report["patients"])),
        Section("headline", "", part("Main result", report["metrics"])),
        Section("design", "", _facts("Design", report, _DESIGN)),
        Section("fitted", "What was fitted, and on whom.", part("Who set what", report.get("fitted"))),
        *(Section(key, intro, part(heading, report.get(key))) for key, (heading, intro) in HEADINGS.items()),
        Section("run", "", part("All folds of the run", (report.get("run") or {}).get("metrics"))),
        *_further(report),
        Section("provenance", "", _provenance(report)),
    ]
    there = {section.key for section in made if section.content}
    places = {one.name: next((key for key in HOMES.get(one.name, ()) if key in there), "figures") for one in drawn}
    housed = [
        Section(one.key, one.intro, one.content, tuple(own for own in drawn if places[own.name] == one.key))
        for one in made
    ]
    others = tuple(own for own in drawn if places[own.name] == "figures")
    return [one for one in housed if one.content] + (
        [Section("figures", "", Part("Further figures"), others)] if others else []
    )


def _facts(heading: str, report: Mapping[str, Any], keys: tuple[str, ...], **more: Any) -> Part:
    return part(heading, {key: report[key] for key in keys if report.get(key) not in (None, "", [])} | more)


def _further(report: Mapping[str, Any]) -> list[Section]:
    """Sections that have no place of their own yet."""
    known = {*HEADINGS, *_PREDICTED, *_DESIGN, *_TOP}
    rest = {key: found for key, found in report.items() if key not in known and isinstance(found, Mapping | list)}
    return [Section(key, "", part(named(key), found)) for key, found in rest.items()]


def _provenance(report: Mapping[str, Any]) -> Part:
    known = {*HEADINGS, *_PREDICTED, *_DESIGN, *_TOP}
    plain = {key: found for key, found in report.items() if key not in known and not isinstance(found, Mapping | list)}
    return part("Provenance", plain)


def _uri(image: bytes | Path) -> str:
    content = image.read_bytes() if isinstance(image, Path) else image
    kind = "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml"
    return f"data:{kind};base64,{b64encode(content).decode()}"
