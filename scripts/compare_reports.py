"""Find every number of a report of schema 2 in today's report, which is computed again from the stored predictions.

    scripts/compare_reports.py model_cards/*/ --old-reports old/

Prints under which key each kind of number stands today, the numbers that have no place, and every number that differs
by more than 1e-12. Exits with 1 if there is any of the last two. Two machines differ by more than that in the bounds of
fitted curves: `--old-reports` holds the reports of schema 2 as the old code computes them on this machine, one
`<folder>.json` for each folder. The old code fitted decisions and calibrations again for a run's own report; this
script does so too, unless `--apply` asks for the states in the manifests.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mil import checkpoint
from mil.fitted.state import refit
from mil.report.report_files import read_report
from mil.report.schema import Report
from mil.report.upgrade import upgrade
from mil.zoo.verify import recompute, recomputed, released_run

TOLERANCE = 1e-12
COMPUTED = ("metrics", "patients", "sections", "parts", "folds", "resamples", "seed")
"""Keys of a report whose numbers come from the predictions."""
Number = int | float


def numbers(document: object, path: str = "") -> Iterator[tuple[str, Number]]:
    """Yield every number of a JSON document with its path."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            yield from numbers(value, f"{path}[{position}]")
    elif isinstance(document, int | float) and not isinstance(document, bool):
        yield path, document


def keys_of(path: str) -> list[str]:
    """Return the keys of a path, without positions in lists."""
    return re.sub(r"\[\d+\]", "", path).split(".")


def likeness(old: str, new: str) -> tuple[int, int]:
    """Return how alike two paths are: shared positions in lists, and shared keys."""
    positions = [re.findall(r"\[\d+\]", path) for path in (old, new)]
    return int(positions[0] == positions[1]), len(set(keys_of(old)) & set(keys_of(new)))


def mapping(old: object, new: object) -> tuple[dict[str, str], list[str]]:
    """Return the new key of each kind of old number, and the old paths of numbers that are nowhere."""
    paths: dict[Number, list[str]] = {}
    for path, value in numbers(new):
        paths.setdefault(value, []).append(path)
    places, lost = dict[str, str](), list[str]()
    for path, value in numbers(old):
        if value in paths:
            place = max(paths[value], key=lambda candidate: likeness(path, candidate))
            places.setdefault(".".join(keys_of(path)), ".".join(keys_of(place)))
        else:
            lost.append(f"{path} = {value}")
    return places, lost


def differences(upgraded: Report, computed: Report) -> Iterator[str]:
    """Yield each number of the old report that the new one does not have, or has with another value."""
    old, new = (dict(numbers(report.model_dump(mode="json", include=set(COMPUTED)))) for report in (upgraded, computed))
    for path, value in old.items():
        if path not in new:
            yield f"{path} was {value}, is absent"
        elif abs(new[path] - value) > TOLERANCE:
            yield f"{path} was {value}, is {new[path]}"


def computed_again(folder: Path, *, refitted: bool) -> Report | None:
    """Return the report of a released folder from its predictions; None where it holds none.

    Args:
        folder: Of a release.
        refitted: Fit decisions and calibrations to the predictions, and do not apply those of the manifest.
    """
    if not refitted:
        return recomputed(folder)
    loaded, stored = checkpoint.load(folder), read_report(folder / "report.json")
    if not loaded.manifest.data.simulated:
        return None
    run = released_run(loaded, stored)
    states = refit(run.tables["predictions"], run.endpoint, run.tool)
    return recompute(replace(run, states=states), loaded, stored)


def compare(folder: Path, old_report: Path, *, refitted: bool) -> tuple[Mapping[str, str], list[str]]:
    """Return the mapping of a released folder's report, and everything that is lost or differs."""
    old = json.loads(old_report.read_text(encoding="utf-8"))
    version = old["schema"]
    upgraded = upgrade(old)
    stated = {key: value for key, value in old.items() if key != "schema"}
    places, lost = mapping(stated, json.loads(upgraded.model_dump_json()))
    computed = computed_again(folder, refitted=refitted)
    wrong = [f"lost: {line}" for line in lost]
    if computed is None:
        return places, [*wrong, "holds no predictions"]
    if version != 2:
        return places, [*wrong, f"schema {version}, expected 2"]
    return places, wrong + list(differences(upgraded, computed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the folders, print what is found, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--old-reports", type=Path, help="folder with <name>.json; by default each folder's report.json"
    )
    parser.add_argument("--apply", action="store_true", help="apply the fitted states of the manifests")
    options = parser.parse_args(arguments)
    places, failed = dict[str, str](), 0
    for folder in options.folders:
        stored = options.old_reports and options.old_reports / f"{folder.name}.json"
        kinds, wrong = compare(folder, stored or folder / "report.json", refitted=not options.apply)
        places |= {old: new for old, new in kinds.items() if old not in places}
        failed += bool(wrong)
        sys.stdout.write(f"{folder.name}: {len(wrong)} numbers lost or different\n")
        sys.stdout.writelines(f"  {line}\n" for line in wrong)
        sys.stdout.flush()
    moved = {old: new for old, new in places.items() if old != new}
    sys.stdout.write(f"{len(places)} kinds of numbers, {len(moved)} of them under another key:\n")
    sys.stdout.writelines(f"  {old} -> {new}\n" for old, new in sorted(moved.items()))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
