"""Mutation tests: applies one-line mistakes to a copy of the checkout, one at a time, and runs the tests of their area.

usage: python scripts/mutants.py [--area AREA] [--file FILE] [--only-new N] [--check] [--timeout 600]
                                 [--list tests/mutants.jsonl] [--root .]

A line of the list is a JSON object: `area`, `file` (relative to the checkout), `old` (text that occurs exactly once in
the file), `new` (what replaces it) and `tests` (test files or folders that should fail).

Prints one line for each mutation: KILLED (a test failed, or ran longer than the timeout), SURVIVED (all tests passed)
or STALE (`old` does not occur exactly once, or a test file is missing; nothing was run). Exit codes: 0 if all were
killed; 1 if one survived, or with --check if one is stale; 2 if the tests fail without any mutation.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = Path("tests", "mutants.jsonl")
COPIED = ("mil", "conf", "docs", "tests", "scripts", "model_cards", "pyproject.toml", "README.md", "CHANGELOG.md")
PYTEST = ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider")


class Outcome(Enum):
    """What the tests said of a mutation."""

    KILLED = "KILLED"
    SURVIVED = "SURVIVED"
    STALE = "STALE"


@dataclass(frozen=True)
class Mutation:
    """One text that is replaced in one file, and the tests that should notice it."""

    area: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        old, new = (json.dumps(text, ensure_ascii=False)[:60] for text in (self.old, self.new))
        return f"{self.area}  {self.file}: {old} -> {new}"

    def is_stale(self, root: Path) -> bool:
        """Whether the mutation no longer fits the code in `root`."""
        path = root / self.file
        fits = path.is_file() and path.read_text(encoding="utf-8").count(self.old) == 1
        return not fits or not all((root / test).exists() for test in self.tests)


def read(path: Path) -> list[Mutation]:
    """Return the mutations of a list, in its order."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Mutation(row["area"], row["file"], row["old"], row["new"], tuple(row["tests"])) for row in rows]


def copy_checkout(root: Path, place: Path) -> None:
    """Copy what the tests need, without compiled files."""
    for path in (root / name for name in COPIED):
        if path.is_dir():
            shutil.copytree(path, place / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy2(path, place / path.name)


def tests_pass(root: Path, tests: Sequence[str], timeout: float) -> bool:
    """Run tests in a copy of the checkout; a run that takes longer than `timeout` seconds counts as failed."""
    # A mutated file can have the size and the second of the file before: a compiled copy would hide the mutation.
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *PYTEST, *tests]
    try:
        ended = subprocess.run(command, cwd=root, env=environment, timeout=timeout, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def attempt(mutation: Mutation, root: Path, timeout: float) -> Outcome:
    """Apply a mutation to a copy of the checkout, run its tests and undo it."""
    if mutation.is_stale(root):
        return Outcome.STALE
    path = root / mutation.file
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
        return Outcome.SURVIVED if tests_pass(root, mutation.tests, timeout) else Outcome.KILLED
    finally:
        path.write_text(original, encoding="utf-8")


def check(mutations: Sequence[Mutation], root: Path) -> int:
    """Print the stale mutations; returns the exit code."""
    stale = [mutation for mutation in mutations if mutation.is_stale(root)]
    for mutation in stale:
        print(f"STALE     {mutation}")
    print(f"{len(stale)} of {len(mutations)} mutations are stale")
    return int(bool(stale))


def run(mutations: Sequence[Mutation], root: Path, timeout: float) -> int:
    """Try every mutation on a copy of the checkout; returns the exit code."""
    outcomes: Counter[Outcome] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_checkout(root, copy)
        tests = sorted({test for mutation in mutations if not mutation.is_stale(copy) for test in mutation.tests})
        if tests and not tests_pass(copy, tests, timeout * len(tests)):
            print(f"the tests fail without any mutation: {' '.join(tests)}", file=sys.stderr)
            return 2
        for mutation in mutations:
            start = time.monotonic()
            outcome = attempt(mutation, copy, timeout)
            outcomes[outcome] += 1
            print(f"{outcome.value:<8}  {mutation}  {time.monotonic() - start:.0f} s", flush=True)
    print(", ".join(f"{outcomes[outcome]} {outcome.value.lower()}" for outcome in Outcome))
    return int(outcomes[Outcome.SURVIVED] > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and the list; returns the exit code."""
    parser = argparse.ArgumentParser(description="Apply one-line mistakes and see whether the tests notice them.")
    parser.add_argument("--area", help="only the mutations of this area")
    parser.add_argument("--file", help="only the mutations of this file")
    parser.add_argument("--only-new", type=int, metavar="N", help="only the last N mutations of the list")
    parser.add_argument("--check", action="store_true", help="only verify that every mutation fits the code")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for the tests of one mutation")
    parser.add_argument("--list", type=Path, help=f"list of mutations; {MUTATIONS} of the checkout by default")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    options = parser.parse_args(arguments)
    mutations = read(options.list or options.root / MUTATIONS)
    mutations = mutations[max(0, len(mutations) - options.only_new) :] if options.only_new is not None else mutations
    mutations = [
        mutation
        for mutation in mutations
        if options.area in (None, mutation.area) and options.file in (None, mutation.file)
    ]
    return check(mutations, options.root) if options.check else run(mutations, options.root, options.timeout)


if __name__ == "__main__":
    sys.exit(main())
