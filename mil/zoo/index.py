"""List the released tools in model_cards/README.md, and show a card's facts in a terminal."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mil import checkpoint, files
from mil.cards import RESEARCH, SIMULATED, Facts
from mil.cards.card_facts import NOBODY_REPORTED
from mil.cards.content import Field
from mil.cards.external_validation import NONE, ExternalValidation
from mil.cards.external_validation import summary as external_summary
from mil.cards.markdown import escaped
from mil.cards.operating_block import at_the_cut
from mil.cards.outputs import outputs
from mil.manifest import Manifest
from mil.report.decision_targets import targets_in_words
from mil.report.page.words import named
from mil.report.paired_difference import shown_sign
from mil.report.report_files import read_report
from mil.report.schema import Estimate, Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.oracle import Oracle
from mil.runs.describe import REPORT
from mil.stats.estimate import format_p
from mil.stats.multiple_tests import holm
from mil.zoo.attach import read_external

INDEX, TITLE = "README.md", "# Released tools"
CATEGORIES = {
    "workflow": "Workflow",
    "biomarker": "Biomarkers",
    "outcome": "Outcomes",
    "response": "Response to treatment",
}
"""Headings of the categories, in the order of the index; other categories follow."""
HEADS = (
    "Tool",
    "Endpoint",
    "Main result (95% interval)",
    "Asked of its decision",
    "Oracle",
    "Beats mean pooling?",
    "External validation",
    "EBAI class",
    "Version",
)
WIDTH = 80
_MARGIN = 18
_ROW = re.compile(r"^\| \[.*?\]\(([^/)\s]+)/README\.md\).*$", re.MULTILINE)
_NOT_AVAILABLE = "not available"
_USE = """\
Score slides from features of their tiles, and show what a tool is:

```console
mil predict msi-crc --features <folder> --out scores.csv
mil zoo show msi-crc
```

Each folder holds the card (`README.md`), the report that its numbers come from (`report.html`, `report.json`) and, of
simulated patients, the predictions from which the report is computed (`predictions.csv`). `mil zoo verify` computes
every number again.
"""
_LEGEND = """\
Patients (n) were held back from training. What is asked of a decision is a number of its rule, judged by these
patients: not reached, reached but not shown by so few patients (the interval holds lower values), or reached. The
oracle is a reader who knows which simulated tiles count: the best that any model could reach. A model beats mean
pooling if the interval of the paired difference lies above zero and its p value, adjusted by Holm's method for all
tools of this page, is below 0.05. EBAI classes are our own mapping of ESMO's framework; nobody has assessed these
tools.
"""


def write_index(folder: Path) -> None:
    """Write `README.md` with all released tools of a folder, from their manifests and reports.

    Raises:
        CheckpointError: if a folder does not match its manifest.
    """
    files.write(folder / INDEX, index_of(folder))


def is_index(path: Path) -> bool:
    """Return whether a file is an index that `write_index` wrote, and not a README of somebody else."""
    return path.is_file() and TITLE in path.read_text(encoding="utf-8", errors="replace").splitlines()


def index_of(folder: Path) -> str:
    """Return the index of all released tools of a folder.

    Raises:
        CheckpointError: if a folder does not match its manifest.
    """
    return index([_facts(place) for place in released_folders(folder)])


def released_folders(folder: Path) -> list[Path]:
    """Return the released tools of a folder, by name."""
    return [path.parent for path in sorted(folder.glob(f"[!.]*/{checkpoint.MANIFEST}"))]


def tool_rows(text: str) -> dict[str, str]:
    """Return the line of each tool in the text of an index, by the tool's folder."""
    return {match[1]: match[0] for match in _ROW.finditer(text)}


def _facts(place: Path) -> Facts:
    return Facts(checkpoint.read_manifest(place), read_report(place / REPORT), external=read_external(place))


def index(tools: Sequence[Facts]) -> str:
    """Return the text of the index."""
    banner = SIMULATED if any(facts.simulated for facts in tools) else RESEARCH
    lines = [f"> **{banner}**", "", TITLE, ""]
    if not tools:
        return "\n".join([*lines, "None is released yet. `mil release RUN --version X.Y.Z` puts one here.", ""])
    lines += [_USE]
    raised = holm([None if (gain := _gain(facts)) is None else gain.p for facts in tools])
    adjusted = {facts.tool.name: p for facts, p in zip(tools, raised, strict=True)}
    for category in _categories(tools):
        members = [facts for facts in tools if _category(facts) == category]
        lines += [f"## {CATEGORIES.get(category) or escaped(category.capitalize())}", "", _table(members, adjusted)]
    return "\n".join([*lines, _LEGEND])


def facts_box(manifest: Manifest, report: Report, external: Sequence[ExternalValidation] = ()) -> str:
    """Return the most important facts of a card as 80 columns of plain text without control characters."""
    facts = Facts(manifest, report, external=external)
    rule = "=" * WIDTH
    body = "\n".join(line for field in _box(facts) for line in _wrapped(field))
    return f"{rule}\n{facts.banner.center(WIDTH).rstrip()}\n{rule}\n{body}\n{rule}\n"


def _category(facts: Facts) -> str:
    return facts.tool.category or "other"


def _categories(tools: Sequence[Facts]) -> list[str]:
    used = {_category(facts) for facts in tools}
    return [name for name in CATEGORIES if name in used] + sorted(used - set(CATEGORIES))


def _table(tools: Sequence[Facts], adjusted: Mapping[str, float | None]) -> str:
    rows = [f"| {' | '.join(_row(facts, adjusted[facts.tool.name]))} |" for facts in tools]
    return "\n".join([f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS), *rows, ""])


def _row(facts: Facts, adjusted_p: float | None) -> list[str]:
    tool, metric, report = facts.tool, facts.metric, facts.all_folds
    name, oracle = tool.name, report.section(Oracle)
    evidence = tool.evidence
    return [
        f"[{escaped(tool.title)}]({name}/README.md)<br>{escaped(name)}",
        escaped(_endpoint(facts)),
        escaped(f"{named(metric)} {report.metrics[metric].described}" if metric else "not available: nobody reported"),
        escaped(_targets(facts)),
        escaped(oracle.metrics[metric] if oracle and metric else _NOT_AVAILABLE),
        escaped(_beats_baseline(facts, adjusted_p)),
        escaped(external_summary(facts).replace(NONE, "none")),
        escaped(evidence.kind or _NOT_AVAILABLE),
        escaped(tool.version),
    ]


def _targets(facts: Facts) -> str:
    """Return the targets of the decisions; a missed one is the first word."""
    if facts.tool.decision is None:
        return "no decision"
    return targets_in_words(facts.report) if facts.metric else NOBODY_REPORTED


def _endpoint(facts: Facts) -> str:
    """Return the kind of the endpoint and its classes, labels or causes."""
    part = facts.manifest.endpoint
    kind = part.name.rpartition(".")[2]
    spaced = "".join(f" {letter.lower()}" if letter.isupper() and at else letter for at, letter in enumerate(kind))
    options = part.options.get("classes") or part.options.get("columns") or part.options.get("causes") or []
    names = [name for name in options if isinstance(name, str)]
    return f"{spaced.capitalize()}: {', '.join(names)}" if names else spaced.capitalize()


def _gain(facts: Facts) -> Estimate | None:
    """Return the difference to mean pooling by the first metric; None without one."""
    baseline = facts.all_folds.section(Baseline)
    return baseline.difference.get(facts.metric) if baseline and facts.metric else None


def _beats_baseline(facts: Facts, adjusted_p: float | None) -> str:
    """Say whether the difference to mean pooling is shown, with its p value adjusted for all tools of the index."""
    gain = _gain(facts)
    if gain is None or gain.low is None or gain.high is None:
        return _NOT_AVAILABLE
    word = {1: "yes", -1: "no, worse", 0: "not shown"}[shown_sign(gain, adjusted_p)]
    p = "" if gain.p is None or adjusted_p is None else f", p {format_p(gain.p)}, Holm {format_p(adjusted_p)}"
    return f"{word}: {gain}{p}"


def _box(facts: Facts) -> Iterator[Field]:
    tool, summary, listed = facts.tool, facts.tool.summary, outputs(facts)
    yield Field("Tool", f"{tool.name} {tool.version}, {tool.title}")
    yield Field("In short", summary.en or facts.text("question"))
    if facts.in_french:
        yield Field("En bref", facts.in_french)
    yield facts.main()
    yield Field("Oracle", facts.oracle().text)
    yield Field("Compared", facts.verdict().text)
    yield Field("External", external_summary(facts))
    yield Field("Asked", _targets(facts))
    yield from at_the_cut(facts)
    if listed:
        texts = [f"{output.name}: {output.meaning} ({output.condition})" for output in listed]
        yield Field("Outputs", "; ".join(texts))
    yield Field("What to do", facts.text("pathway"))
    yield Field("Not for", "; ".join(facts.lines("out_of_scope")))
    yield Field("Evidence", facts.evidence())


def _wrapped(field: Field) -> list[str]:
    text = "".join(letter if letter.isprintable() else " " for letter in str(field.text))
    lines = textwrap.wrap(text, WIDTH - _MARGIN) or [""]
    name = textwrap.shorten(field.name, _MARGIN - 1, placeholder="…")
    return [f"{name if at == 0 else '':<{_MARGIN}}{line}" for at, line in enumerate(lines)]
