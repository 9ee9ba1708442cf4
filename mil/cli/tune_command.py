"""`mil tune`: search options; print what was chosen, how well it does on unseen patients, and how to train with it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mil.cli.report_place import say_where
from mil.errors import ConfigError
from mil.report.report_files import read_report
from mil.runs.describe import PAGE, REPORT, headline
from mil.runs.tuning import TuneOptions, check_place, tune
from mil.study.compose import compose
from mil.study.search_space import search_space


def start(words: Sequence[str], out: Path, options: TuneOptions, config_dir: Path | None) -> None:
    """Search, train and report; the last line is the folder of the run.

    Raises:
        MilError: Wrong options, an error in the files that they name, or no trial that could be judged.
    """
    if flags := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"option {flags[0]!r} does not exist, expected KEY=VALUE or an option of mil tune --help")
    space = search_space(words, config_dir)
    check_place(out, compose(space.first, config_dir))
    sys.stderr.writelines(f"searched: {dimension.line}\n" for dimension in space.dimensions)
    tuned = tune(words, out, options, config_dir)
    for name, chosen in tuned.chosen.items():
        differing = [word for word in chosen if word not in space.fixed]
        line = (
            f"{name}: {' '.join(differing)}, {tuned.metric} {tuned.values[name]:.3f} among the patients that judged it"
        )
        sys.stdout.write(f"{line}\n")
    report = read_report(tuned.run / REPORT)
    sys.stdout.writelines(f"{line}\n" for line in headline(report))
    rest = [word for word in space.fixed if word.partition("=")[0].partition(".")[0] not in ("split", "hydra")]
    use = shlex.join(["mil", "train", *rest, "experiment=tuned", "--config-dir", str(tuned.options.parents[1])])
    sys.stdout.write(f"train with it: {use}\n{tuned.run}\n")
    say_where(tuned.run / PAGE)
