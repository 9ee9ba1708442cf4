"""List the released tools in model_cards/README.md, and show a card's facts in a terminal."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from mil import checkpoint, files
from mil.cards import RESEARCH, SIMULATED, Facts
from mil.cards.content import Field
from mil.cards.markdown import escaped
from mil.cards.operating_block import at_the_cut
from mil.cards.purpose import outputs
from mil.manifest import Manifest
from mil.report.page.words import named
from mil.report.report_files import read_report
from mil.report.schema import Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.oracle import Oracle
from mil.runs.describe import REPORT

INDEX = "README.md"
CATEGORIES = {"workflow": "Workflow", "biomarker": "Biomarkers", "outcome": "Outcomes"}
"""Headings of the categories, in the order of the index; other categories follow."""
HEADS = ("Tool", "Endpoint", "Main result (95% interval)", "Oracle", "Beats mean pooling?", "EBAI class", "Version")
WIDTH = 80
_MARGIN = 18
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
Patients (n) were held back from training. The oracle is a reader who knows which simulated tiles count: the best that
any model could reach. A model beats mean pooling if the interval of the paired difference lies above zero. EBAI classes
are our own mapping of ESMO's framework; nobody has assessed these tools.
"""


def write_index(folder: Path) -> None:
    """Write `README.md` with all released tools of a folder, from their manifests and reports.

    Raises:
        CheckpointError: if a folder does not match its manifest.
    """
    places = [path.parent for path in sorted(folder.glob(f"[!.]*/{checkpoint.MANIFEST}"))]
    tools = [Facts(checkpoint.read_manifest(place), read_report(place / REPORT)) for place in places]
    files.write(folder / INDEX, index(tools))


def index(tools: Sequence[Facts]) -> str:
    """Return the text of the index."""
    banner = SIMULATED if any(facts.simulated for facts in tools) else RESEARCH
    lines = [f"> **{banner}**", "", "# Released tools", ""]
    if not tools:
        return "\n".join([*lines, "None is released yet. `mil release RUN --version X.Y.Z` puts one here.", ""])
    lines += [_USE]
    for category in _categories(tools):
        members = [facts for facts in tools if _category(facts) == category]
        lines += [f"## {CATEGORIES.get(category) or escaped(category.capitalize())}", "", _table(members)]
    return "\n".join([*lines, _LEGEND])


def facts_box(manifest: Manifest, report: Report) -> str:
    """Return the most important facts of a card as 80 columns of plain text without control characters."""
    facts = Facts(manifest, report)
    rule = "=" * WIDTH
    body = "\n".join(line for field in _box(facts) for line in _wrapped(field))
    return f"{rule}\n{facts.banner.center(WIDTH).rstrip()}\n{rule}\n{body}\n{rule}\n"


def _category(facts: Facts) -> str:
    return facts.tool.category or "other"


def _categories(tools: Sequence[Facts]) -> list[str]:
    used = {_category(facts) for facts in tools}
    return [name for name in CATEGORIES if name in used] + sorted(used - set(CATEGORIES))


def _table(tools: Sequence[Facts]) -> str:
    rows = [f"| {' | '.join(_row(facts))} |" for facts in tools]
    return "\n".join([f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS), *rows, ""])


def _row(facts: Facts) -> list[str]:
    tool, metric, report = facts.tool, facts.metric, facts.all_folds
    name, oracle = tool.name, report.section(Oracle)
    evidence = tool.evidence
    return [
        f"[{escaped(tool.title)}]({name}/README.md)<br>{escaped(name)}",
        escaped(_endpoint(facts)),
        escaped(f"{named(metric)} {report.metrics[metric].described}" if metric else "not available: nobody reported"),
        escaped(oracle.metrics[metric] if oracle and metric else _NOT_AVAILABLE),
        escaped(_beats_baseline(facts)),
        escaped(evidence.kind or _NOT_AVAILABLE),
        escaped(tool.version),
    ]


def _endpoint(facts: Facts) -> str:
    """Return the kind of the endpoint and its classes, labels or causes."""
    part = facts.manifest.endpoint
    kind = part.name.rpartition(".")[2]
    spaced = "".join(f" {letter.lower()}" if letter.isupper() and at else letter for at, letter in enumerate(kind))
    options = part.options.get("classes") or part.options.get("columns") or part.options.get("causes") or []
    names = [name for name in options if isinstance(name, str)]
    return f"{spaced.capitalize()}: {', '.join(names)}" if names else spaced.capitalize()


def _beats_baseline(facts: Facts) -> str:
    baseline = facts.all_folds.section(Baseline)
    gain = baseline.difference[facts.metric] if baseline and facts.metric else None
    if gain is None or gain.low is None or gain.high is None:
        return _NOT_AVAILABLE
    word = "yes" if gain.low > 0 else "no, worse" if gain.high < 0 else "not shown"
    return f"{word}: {gain}"


def _box(facts: Facts) -> Iterator[Field]:
    tool, summary, table = facts.tool, facts.tool.summary, outputs(facts)
    yield Field("Tool", f"{tool.name} {tool.version}, {tool.title}")
    yield Field("In short", summary.en or facts.text("question"))
    if summary.fr:
        yield Field("En bref", summary.fr)
    yield facts.main()
    yield Field("Oracle", facts.oracle().text)
    yield Field("Compared", facts.verdict().text)
    yield from at_the_cut(facts)
    if table:
        yield Field("Outputs", "; ".join(f"{row[0]}: {row[1]}" for row in table.rows))
    yield Field("What to do", facts.text("pathway"))
    yield Field("Not for", "; ".join(facts.lines("out_of_scope")))
    yield Field("Evidence", facts.evidence())


def _wrapped(field: Field) -> list[str]:
    text = "".join(letter if letter.isprintable() else " " for letter in str(field.text))
    lines = textwrap.wrap(text, WIDTH - _MARGIN) or [""]
    name = textwrap.shorten(field.name, _MARGIN - 1, placeholder="…")
    return [f"{name if at == 0 else '':<{_MARGIN}}{line}" for at, line in enumerate(lines)]
