"""Released tools at a glance: model_cards/README.md, and a card's facts in a terminal."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mil import checkpoint, files
from mil.cards import RESEARCH, SIMULATED, Facts
from mil.cards.content import Field
from mil.cards.markdown import escaped
from mil.cards.measured import interval, population
from mil.cards.operating_block import at_the_cut
from mil.cards.purpose import outputs
from mil.manifest import Manifest
from mil.report.page.words import named

INDEX = "README.md"
CATEGORIES = {"workflow": "Workflow", "biomarker": "Biomarkers", "outcome": "Outcomes"}
"""In the index's order; others come after them."""
HEADS = ("Tool", "Endpoint", "Main result (95% interval)", "Oracle", "Beats mean pooling?", "EBAI class", "Version")
WIDTH = 80
_MARGIN = 18
_USE = """\
Scores of slides, from features of their tiles, and what a tool is:

```console
mil predict msi-crc --features <folder> --out scores.csv
mil zoo show msi-crc
```

Each folder holds the card (`README.md`), the report that its numbers come from (`report.html`, `report.json`) and, of
simulated patients, the predictions that the report is made from (`predictions.csv`). `mil zoo verify` computes every
number again.
"""


def write_index(folder: Path) -> None:
    """Writes `README.md` over the released tools in a folder, from their manifests and reports.

    Raises:
        CheckpointError: a folder with a manifest whose files are not what it counts.
    """
    found = [_facts(path.parent) for path in sorted(folder.glob(f"[!.]*/{checkpoint.MANIFEST}"))]
    files.write(folder / INDEX, index(found))


def index(tools: list[Facts]) -> str:
    """The page itself."""
    banner = SIMULATED if any(facts.simulated for facts in tools) else RESEARCH
    lines = [f"> **{banner}**", "", "# Released tools", ""]
    if not tools:
        return "\n".join([*lines, "None is released yet. `mil release RUN --version X.Y.Z` puts one here.", ""])
    lines += [_USE]
    for category in _categories(tools):
        own = [facts for facts in tools if _category(facts) == category]
        lines += [f"## {CATEGORIES.get(category) or escaped(category.capitalize())}", "", _table(own)]
    return "\n".join([*lines, _LEGEND])


def facts_box(manifest: Manifest, report: Mapping[str, Any]) -> str:
    """What a reader sees first of a card, in 80 columns of plain text without control characters."""
    facts = Facts(manifest, report)
    rule = "=" * WIDTH
    body = "\n".join(line for field in _box(facts) for line in _lines(field))
    return f"{rule}\n{facts.banner.center(WIDTH).rstrip()}\n{rule}\n{body}\n{rule}\n"


_LEGEND = """\
Patients (n) were held back from training. The oracle is a reader who knows which simulated tiles count: the best that
any model could reach. A model beats mean pooling where the interval of the paired difference lies above zero. EBAI
classes are our own mapping of ESMO's framework; nobody has assessed these tools.
"""


def _facts(folder: Path) -> Facts:
    return Facts(checkpoint.read_manifest(folder), files.read_json(folder / "report.json"))


def _category(facts: Facts) -> str:
    return str(facts.tool.get("category") or "other")


def _categories(tools: list[Facts]) -> list[str]:
    there = {_category(facts) for facts in tools}
    return [name for name in CATEGORIES if name in there] + sorted(there - set(CATEGORIES))


def _table(tools: list[Facts]) -> str:
    rows = [f"| {' | '.join(_row(facts))} |" for facts in tools]
    return "\n".join([f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS), *rows, ""])


def _row(facts: Facts) -> list[str]:
    tool, metric = facts.tool, facts.metric
    name = str(tool["name"])
    main = None if metric is None else facts.all_folds["metrics"][metric]
    oracle = (facts.all_folds.get("oracle") or {}).get(metric)
    evidence = tool.get("evidence") or {}
    return [
        f"[{escaped(tool['title'])}]({name}/README.md)<br>{escaped(name)}",
        escaped(_endpoint(facts)),
        escaped(f"{named(str(metric))} {interval(main)}, {population(main)}")
        if main
        else "not available: nobody reported",
        escaped(interval(oracle)) if oracle else "not available",
        escaped(_beats(facts)),
        escaped(evidence.get("class") or "not available"),
        escaped(tool["version"]),
    ]


def _endpoint(facts: Facts) -> str:
    """Its kind, and its classes where they are few."""
    part = facts.manifest.endpoint
    kind = part.name.rpartition(".")[2]
    spaced = "".join(f" {letter.lower()}" if letter.isupper() and at else letter for at, letter in enumerate(kind))
    names = part.options.get("classes") or part.options.get("columns") or part.options.get("causes") or []
    names = [one for one in names if isinstance(one, str)]
    return f"{spaced.capitalize()}: {', '.join(names)}" if names else spaced.capitalize()


def _beats(facts: Facts) -> str:
    gain = ((facts.all_folds.get("baseline") or {}).get("difference") or {}).get(facts.metric)
    if not gain or gain["low"] is None:
        return "not available"
    word = "yes" if gain["low"] > 0 else "no, worse" if gain["high"] < 0 else "not shown"
    return f"{word}: {interval(gain)}"


def _box(facts: Facts) -> Iterator[Field]:
    tool, lines, table = facts.tool, facts.tool.get("facts") or {}, outputs(facts)
    yield Field("Tool", f"{tool['name']} {tool['version']}, {tool['title']}")
    yield Field("In short", str(lines.get("en") or facts.text("question")))
    if lines.get("fr"):
        yield Field("En bref", str(lines["fr"]))
    yield facts.main()
    yield Field("Oracle", facts.oracle().text)
    yield Field("Compared", facts.verdict().text)
    yield from at_the_cut(facts)
    if table:
        yield Field("Outputs", "; ".join(f"{row[0]}: {row[1]}" for row in table.rows))
    yield Field("What to do", facts.text("pathway"))
    yield Field("Not for", "; ".join(facts.lines("out_of_scope")))
    yield Field("Evidence", facts.evidence())


def _lines(field: Field) -> list[str]:
    text = "".join(letter if letter.isprintable() else " " for letter in str(field.text))
    body = textwrap.wrap(text, WIDTH - _MARGIN) or [""]
    name = textwrap.shorten(field.name, _MARGIN - 1, placeholder="…")
    return [f"{name if at == 0 else '':<{_MARGIN}}{line}" for at, line in enumerate(body)]
