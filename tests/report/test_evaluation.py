"""What an evaluation knows of its table of predictions."""

import pandas as pd

from mil.endpoints.classification import Binary
from mil.report.evaluation import Evaluation

from .tables import binary


def test_a_patient_whom_several_folds_report_counts_once_as_in_the_first_fold() -> None:
    once = binary(patients=60)
    twice = pd.concat([once, once.assign(fold=once["fold"] + 3, p_1=once["p_1"] / 2)])
    reported = Evaluation.of(twice, Binary()).reported
    assert reported.index.is_unique
    pd.testing.assert_frame_equal(reported, Evaluation.of(once, Binary()).reported)
    assert Evaluation.of(twice, Binary()).counts["n"] == 60
