"""`mil check`: what is in a cohort and what is wrong with it, as a table for people or as JSON for programs."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from mil.cli.terminal_lines import add_row, print_tables
from mil.errors import printable
from mil.findings import Finding, raise_first_error
from mil.splits.roles import ROLES
from mil.study import split_file_findings
from mil.study.cohort_facts import facts, rows
from mil.study.pipeline import check_study
from mil.study.run_config import RunConfig

_NAMED = 5
"""Items that are named in a line; `--json` has ten."""


def check(config: RunConfig, deep: bool = False, as_json: bool = False, workers: int = 2) -> int:
    """Read the cohort, every file's header or the whole files, and the split, and print what is wrong with them.

    Returns:
        0 where nothing is wrong, 1 where there are warnings.

    Raises:
        MilError: The first error, after all were printed.
    """
    # the logger of "GPU available: ..."; importing Lightning sets the levels of its other loggers, not of this one
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    result = check_study(config, deep, workers)
    numbers = facts(result)
    if as_json:
        _print_json(asdict(numbers), result.findings, result.unchecked)
    else:
        _print_table(rows(numbers))
        if numbers.sites:
            _print_sites(numbers.sites)
        _print_findings(result.findings, result.unchecked)
    return _exit_code(result.findings)


def check_split(path: Path, column: str | None, as_json: bool = False) -> int:
    """Read a split file alone and print, of every fold, how many patients stand on both sides.

    Returns:
        0, where no patient does.

    Raises:
        SplitError: No such file or column, or a table of no known shape.
        MilError: The first fold with patients on both sides, after all were printed.
    """
    folds = split_file_findings.read(path, column)
    findings = split_file_findings.findings(folds)
    if as_json:
        counts = [{"fold": fold.fold} | fold.patients | {"both": fold.both} for fold in folds]
        _print_json({"split": str(path), "folds": counts}, findings, [])
    else:
        table = Table("fold", *ROLES, "both sides", box=None, pad_edge=False)
        for fold in folds:
            shared = {patient for patients in fold.both.values() for patient in patients}
            add_row(table, (fold.fold, *(fold.patients[role] for role in ROLES), len(shared)))
        print_tables(table)
        _print_findings(findings, [])
    return _exit_code(findings)


def _exit_code(findings: Sequence[Finding]) -> int:
    raise_first_error(findings)
    return int(bool(findings))


def _print_json(numbers: Mapping[str, object], findings: Sequence[Finding], unchecked: Sequence[str]) -> None:
    document = {
        **numbers,
        "findings": [
            {
                "severity": finding.severity,
                "code": finding.code,
                "message": finding.message,
                "count": finding.count,
                "first": finding.first,
            }
            for finding in findings
        ],
        "not_checked": list(unchecked),
        "errors": sum(finding.severity == "error" for finding in findings),
        "warnings": sum(finding.severity == "warning" for finding in findings),
    }
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _print_table(lines: Mapping[str, str]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path is shown to its end
    for name, value in lines.items():
        add_row(table, (name, value))
    print_tables(table)


def _print_sites(sites: Mapping[str, Mapping[str, int]]) -> None:
    classes = sorted({name for counts in sites.values() for name in counts})
    table = Table("site", *map(printable, classes), box=None, pad_edge=False)
    for site, counts in sites.items():
        add_row(table, (site, *(counts.get(name, 0) for name in classes)))
    print_tables("", table)


def _print_findings(findings: Sequence[Finding], unchecked: Sequence[str]) -> None:
    lines = [""]
    for severity in ("error", "warning"):
        for finding in (finding for finding in findings if finding.severity == severity):
            lines.append(f"{severity}: {finding.message}")
            lines += [f"    {_shortened(finding)}"] if finding.first else []
    if unchecked:
        lines.append(f"not checked, for want of what comes before: {', '.join(unchecked)}")
    if lines == [""]:
        lines.append("nothing is wrong")
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)


def _shortened(finding: Finding) -> str:
    """Return the first items in one line, and how many there are besides."""
    unnamed = finding.count - len(finding.first[:_NAMED])
    return ", ".join(finding.first[:_NAMED]) + (f" and {unnamed} more" if unnamed > 0 else "")
