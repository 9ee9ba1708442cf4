"""`mil check`: what was found, as a table for people or as JSON for programs; and what `mil train` says of it."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mil.cli.progress import bars
from mil.errors import MilError
from mil.splits.folds import Split
from mil.splits.roles import ROLES
from mil.study import split_file_findings
from mil.study.cohort_facts import facts, rows
from mil.study.config import RunConfig
from mil.study.findings import Finding
from mil.study.inspection import inspect
from mil.study.log_findings import diverted
from mil.study.pipeline import Study
from mil.study.study_findings import of_study


def check(settings: RunConfig, deep: bool = False, as_json: bool = False, workers: int = 2) -> int:
    """Reads the cohort, every file's header or whole file, and the split, and prints what was found.

    Returns:
        0 where nothing is wrong, 1 where there are warnings.

    Raises:
        MilError: The first error, after all were printed.
    """
    with bars() as advance:
        found = inspect(settings, deep, workers, advance)
    told = facts(found)
    if as_json:
        _print_json(told, found.findings, found.unchecked)
    else:
        _print_table(rows(told))
        if told["sites"]:
            _print_sites(told["sites"])
        _print_findings(found.findings, found.unchecked)
    return _ended(found.findings)


def check_split(path: Path, column: str | None, as_json: bool = False) -> int:
    """Reads a split file alone and prints, of every fold, how many patients stand on both sides.

    Returns:
        0: none does.

    Raises:
        SplitError: No such file or column, or a table of no known shape.
        MilError: The first fold with patients on both sides, after all were printed.
    """
    folds = split_file_findings.read(path, column)
    findings = split_file_findings.findings(folds)
    if as_json:
        counted = [{"fold": one.fold} | one.patients | {"both": one.both} for one in folds]
        _print_json({"split": str(path), "folds": counted}, findings, [])
    else:
        table = Table("fold", *ROLES, "both sides", box=None, pad_edge=False)
        for one in folds:
            shared = {patient for own in one.both.values() for patient in own}
            table.add_row(one.fold, *(str(one.patients[role]) for role in ROLES), str(len(shared)))
        _print(table)
        _print_findings(findings, [])
    return _ended(findings)


def before_training(settings: RunConfig, study: Study, split: Split) -> list[Finding]:
    """What the run's log should say of its study.

    Raises:
        MilError: What training would stumble over later, or should not be done at all.
    """
    findings = of_study(settings, study, split)
    _refuse(findings)
    return findings


def explained(settings: RunConfig, error: MilError) -> MilError:
    """The error that a study could not be made for; where it is not the only one, with how to see the others."""
    try:
        with diverted(logging.NOTSET):
            errors = inspect(settings).of("error")
    except MilError:
        return error
    if len(errors) < 2:
        return error
    return type(error)(f"{error} (mil check with the same words shows all {len(errors)} errors)")


def _refuse(findings: Sequence[Finding]) -> None:
    errors = [one for one in findings if one.severity == "error"]
    if errors:
        more = f" (the first of {len(errors)} errors)" if len(errors) > 1 else ""
        raise MilError(errors[0].line + more)


def _ended(findings: Sequence[Finding]) -> int:
    _refuse(findings)
    return int(bool(findings))


def _print_json(told: dict[str, Any], findings: Sequence[Finding], unchecked: Sequence[str]) -> None:
    amounts = {f"{kind}s": sum(one.severity == kind for one in findings) for kind in ("error", "warning")}
    document = told | {"findings": list(map(asdict, findings)), "not_checked": list(unchecked)} | amounts
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _print_table(told: dict[str, str]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in told.items():
        table.add_row(name, value)
    _print(table)


def _print_sites(told: dict[str, dict[str, int]]) -> None:
    classes = sorted({name for own in told.values() for name in own})
    table = Table("site", *classes, box=None, pad_edge=False)
    for site, own in told.items():
        table.add_row(site, *(str(own.get(name, 0)) for name in classes))
    _print("", table)


def _print_findings(findings: Sequence[Finding], unchecked: Sequence[str]) -> None:
    lines = [""]
    for kind in ("error", "warning"):
        for one in (one for one in findings if one.severity == kind):
            lines.append(f"{kind}: {one.message}")
            lines += [f"    {name}" for name in one.first]
            lines += [f"    and {one.count - len(one.first)} more"] if one.first and one.count > len(one.first) else []
    if unchecked:
        lines.append(f"not checked, for want of what comes before: {', '.join(dict.fromkeys(unchecked))}")
    if lines == [""]:
        lines.append("nothing is wrong")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _print(*what: Table | str) -> None:
    Console(soft_wrap=True, markup=False, highlight=False).print(*what, sep="\n")
