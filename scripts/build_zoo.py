"""Build `model_cards/`: train, evaluate and release each tool of the zoo on its simulated cohort, as a user would.

A tool that was built from the same code and options is not built again; one that was interrupted is continued.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

from hydra.utils import get_class

from mil import checkpoint, config, files
from mil.study.compose import compose
from mil.zoo.index import write_index

ROOT = Path(__file__).parents[1]
CATEGORIES = ("workflow", "biomarker", "outcome", "response")
"""Categories of the tools that are released; examples have other ones."""
OPTIONS = ("split=holdout", "split.report=0.4", "trainer.enable_progress_bar=false", "data.workers=0")
FEDERATED = {"pcr-tnbc": ("trainer.max_epochs=60", "optimizer.lr=2e-3", "federation.together=true")}
"""Tools that `mil federate` trains over the centres of their simulated cohort, with their options. A step holds ten
patients of each centre or more, so that an epoch has few steps."""
EXPLAINED = ("--most", "6", "--measure", "24", "--format", "csv")
"""Options of the explanation from which the maps in report and card are drawn."""
SMALL = {"embed_dim": 128, "attention_dim": 64}
"""Options of the models that have them; small, since simulated features are 128 wide and git stores the weights."""
MEMBERS = {"outcome": 3}
"""Networks that are trained for a tool, by its category: where few select patients have the event, the random start and
the choice of the epoch matter more. Each has half the width, so that the ensemble is about as large as one network."""
SUFFIXES = (".py", ".j2", ".yaml")


@dataclass(frozen=True)
class Build:
    """What is built, and where."""

    out: Path
    work: Path
    version: str
    words: tuple[str, ...]
    """options in addition to those of each tool"""
    digest: str
    """of code and options; a tool with a different one is built again"""
    small: Mapping[str, Sequence[str]]
    """number and widths of each tool's networks"""

    def folder(self, tool: str) -> Path:
        """Return the run folder of a tool."""
        return self.work / tool / self.digest[:16]

    def done(self, tool: str) -> bool:
        """Return whether the tool in `out` was built from this code with these options."""
        state, manifest = self._state(tool), self.out / tool / checkpoint.MANIFEST
        if not (state.is_file() and manifest.is_file()):
            return False
        stored = files.read_json(state)
        return bool(stored == {"digest": self.digest, "manifest": files.sha256(manifest)})

    def keep(self, tool: str) -> None:
        """Record that it was."""
        record = {"digest": self.digest, "manifest": files.sha256(self.out / tool / checkpoint.MANIFEST)}
        files.write_json(self._state(tool), record)

    def _state(self, tool: str) -> Path:
        return self.work / tool / "built.json"


def tools() -> list[str]:
    """Return the names of the tools to release, in the order of their files."""
    described = config.described("tool")
    return [name for name, node in described.items() if node["tool"].get("category") in CATEGORIES]


def digest(version: str, words: Sequence[str]) -> str:
    """Return a digest of everything that a build depends on, except the libraries."""
    sha256 = hashlib.sha256(json.dumps([version, *words]).encode())
    for path in sorted(path for name in ("mil", "conf") for path in (ROOT / name).rglob("*")):
        if path.suffix in SUFFIXES:
            sha256.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return sha256.hexdigest()


def build(tool: str, job: Build) -> float:
    """Train and release one tool; return the seconds it took.

    Raises:
        CalledProcessError: A command failed; its output is in the tool's `log.txt` under `work`.
    """
    start, run = time.perf_counter(), job.folder(tool)
    cache = job.work / tool / "cache"  # removed with its cohort when the tool is built
    if not (run / "checkpoint" / "README.md").is_file():
        for folder in (job.work / tool).glob("*"):
            if folder.is_dir() and folder not in (run, cache):
                shutil.rmtree(folder)
        begun = (run / "config.yaml").is_file()
        options = (*OPTIONS, *job.small[tool], *FEDERATED.get(tool, ()), *job.words)
        fresh = (f"tool={tool}", *options, f"hydra.run.dir={run}")
        words: tuple[str | Path, ...] = ("--resume", run) if begun else fresh
        _mil(job.work / tool, cache, "federate" if tool in FEDERATED else "train", *words)
    if not (run / "explain" / "explain.json").is_file():
        _mil(job.work / tool, cache, "explain", run, *EXPLAINED)
    if (job.out / tool).is_dir() and _version(job.out / tool) == job.version:
        shutil.rmtree(job.out / tool)  # the same version is replaced; git has the old one
    _mil(job.work / tool, cache, "release", run, "--version", job.version, "--out", job.out)
    shutil.rmtree(cache, ignore_errors=True)
    job.keep(tool)
    return time.perf_counter() - start


def _small(tool: str) -> list[str]:
    """Return the options for the number of a tool's networks, and for their widths if the model has such options."""
    composed = compose([f"tool={tool}"])
    members = MEMBERS.get(str(composed.tool.category), 1)
    parameters = signature(get_class(composed.model.target)).parameters
    widths = [f"++model.{name}={width // min(members, 2)}" for name, width in SMALL.items() if name in parameters]
    return widths if members == 1 else [*widths, f"++model.members={members}"]


def _version(folder: Path) -> str | None:
    path = folder / checkpoint.MANIFEST
    return str(files.read_json(path)["tool"]["version"]) if path.is_file() else None


def _mil(folder: Path, cache: Path, *words: str | Path) -> None:
    """Run one command in a process of its own, with one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MIL_CACHE": str(cache.absolute())}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "mil", *map(str, words)]
        subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log, check=True)


def run(names: Sequence[str], job: Build, jobs: int) -> Iterator[str]:
    """Build the tools, `jobs` in parallel; yield a line for each."""
    waiting = [name for name in names if not job.done(name)]
    yield from (f"{name}: kept, built from this code" for name in names if name not in waiting)
    with ThreadPoolExecutor(jobs) as pool:  # the threads only wait for processes
        tool_of_future = {pool.submit(build, name, job): name for name in waiting}
        for future in as_completed(tool_of_future):
            try:
                yield f"{tool_of_future[future]}: {future.result():.0f} s"
            except subprocess.CalledProcessError as error:
                log = job.work / tool_of_future[future] / "log.txt"
                yield f"{tool_of_future[future]}: FAILED with {error.returncode}: {_last(log)} ({log})"


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "no output"


def main(given: Sequence[str] | None = None) -> int:
    """Build the chosen tools; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tools", default="", help="comma-separated; default: all tools of the zoo")
    parser.add_argument("--jobs", type=int, default=2, help="processes in parallel")
    parser.add_argument("--out", type=Path, default=ROOT / "model_cards")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "build_zoo")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("words", nargs="*", help="further options of mil train, for a trial")
    options = parser.parse_args(given)
    names = options.tools.split(",") if options.tools else tools()
    if unknown := sorted(set(names) - set(tools())):
        parser.error(f"{unknown[0]} is no tool of the zoo, expected {', '.join(tools())}")
    out, work = options.out.absolute(), options.work.absolute()
    small = {name: _small(name) for name in names}  # Hydra composes one configuration at a time
    job = Build(out, work, options.version, tuple(options.words), digest(options.version, options.words), small)
    start, failed = time.perf_counter(), False
    for line in run(names, job, options.jobs):
        failed = failed or "FAILED" in line
        print(line, flush=True)
    write_index(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"{len(names)} tools in {time.perf_counter() - start:.0f} s; {out} has {size:.1f} MB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
