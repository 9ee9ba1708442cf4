"""`mil propose`: what to train a cohort with, and why, from its numbers alone."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mil.errors import ConfigError
from mil.study.compose import compose
from mil.study.proposal import numbers_of, propose
from mil.study.reader import StudyReader
from mil.study.source import source_of


def show(words: Sequence[str], config_dir: Path | None) -> None:
    """Print the numbers, each proposed option with its reason, and last the command.

    Raises:
        MilError: Wrong options, or the first error in cohort and features.
    """
    if flags := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"option {flags[0]!r} does not exist, expected KEY=VALUE")
    proposal = propose(numbers_of(StudyReader(source_of(compose(words, config_dir)))))
    given = {word.lstrip("+").partition("=")[0] for word in words}
    width = max(len(option.word) for option in proposal.options)
    lines = [proposal.numbers.line, proposal.attention]
    for option in proposal.options:
        note = "; you gave another" if option.word.partition("=")[0] in given else ""
        lines.append(f"  {option.word:<{width}}  {option.reason}{note}")
    further = [option.word for option in proposal.options if option.word.partition("=")[0] not in given]
    place = ["--config-dir", str(config_dir)] if config_dir else []
    lines += [
        "These are rules of thumb, no result: mil tune searches around them, mil compare tells runs apart.",
        shlex.join(["mil", "train", *words, *further, *place]),
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
