"""What can go wrong at a user's hand.

    MilError
    ├── ConfigError       an option that does not exist, or a value it cannot have
    ├── CohortError       the clinical table: ids, labels, times
    ├── FeatureError      a slide's feature file: missing, broken, empty, not finite
    │   └── EncoderError  features of another encoder, or of another width, than expected
    ├── SplitError        patients on two sides, folds that cannot be made
    ├── CheckpointError   a released folder that is not what its manifest says
    ├── PredictionsError  a table of predictions that cannot be evaluated
    └── ReportError       a report.json that is not one, or of an unknown schema

Each message is one line: the thing, what was found, what was expected. The command line prints it and exits with 2.
"""


class MilError(Exception):
    """Root of every error that a user can cause and mend."""


class ConfigError(MilError):
    """An option or its value."""


class CohortError(MilError):
    """A clinical table."""


class FeatureError(MilError):
    """A slide's feature file."""


class EncoderError(FeatureError):
    """Features of another encoder, or of another width, than the tool expects."""


class SplitError(MilError):
    """The patients' roles."""


class CheckpointError(MilError):
    """A checkpoint folder."""


class PredictionsError(MilError):
    """A table of predictions."""


class ReportError(MilError):
    """A stored report."""
