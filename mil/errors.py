"""Errors that a user can cause and correct.

    MilError
    ├── ConfigError       an option that does not exist, or a value it cannot have
    ├── CohortError       the clinical table: ids, labels, times
    ├── FeatureError      a slide's feature file: missing, broken, empty, not finite
    │   └── EncoderError  features of another encoder, or of another width, than expected
    ├── SplitError        patients in two roles, folds that cannot be made
    ├── CheckpointError   a released folder that is not what its manifest says
    ├── TrainingError     a training that cannot go on: a loss that is not finite, a reading process that was killed
    ├── ResourceError     memory that there is not
    ├── PredictionsError  a table of predictions that cannot be evaluated
    ├── ReportError       a report.json that is not one, or of an unknown schema
    └── ScanError         a whole-slide image that cannot be read, or two for one slide

Each message is one line: what is wrong, what was found, what was expected. The command line prints it and exits with 2.
"""

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that move a terminal's cursor, change its colours, begin a line, turn the direction of writing, or show
nothing and can carry a hidden text."""


def printable(text: str) -> str:
    r"""Return a text in one line in which control characters, as names of files may hold them, are shown as `\x1b`."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class MilError(Exception):
    """Base class of all errors that a user can cause and correct."""


class ConfigError(MilError):
    """An option does not exist or has a value that is not allowed."""


class CohortError(MilError):
    """A clinical table is wrong."""


class FeatureError(MilError):
    """A feature file is missing, broken, empty or not finite."""


class EncoderError(FeatureError):
    """Features come from another encoder, or have another width, than expected."""


class SplitError(MilError):
    """Patients cannot be split, or their roles contradict each other."""


class CheckpointError(MilError):
    """A checkpoint folder is not what its manifest says."""


class TrainingError(MilError):
    """A training cannot go on; what it had reached is kept."""


class ResourceError(MilError):
    """More memory is needed than there is."""


class PredictionsError(MilError):
    """A table of predictions cannot be evaluated."""


class ReportError(MilError):
    """A stored report cannot be read."""


class ScanError(MilError):
    """A whole-slide image cannot be read, or several files may be the scan of one slide."""
