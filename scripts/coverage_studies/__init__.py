"""Studies of what intervals and verdicts hold: each simulates cohorts with known truth and calls the package."""

from collections.abc import Mapping

from coverage_studies.areas import classification, grades, method
from coverage_studies.compared import added, comparisons, hazards
from coverage_studies.competed import competing
from coverage_studies.decided import calls, cuts, flags, utility
from coverage_studies.grouped import gaps, sites, synthesis
from coverage_studies.numbers import values
from coverage_studies.probabilities import calibration, recalibration, sets
from coverage_studies.simulated import Study
from coverage_studies.survived import curves, survival

HOLD_OUT, FIVE_FOLDS = ("hold-out",), ("five folds",)
STUDIES: Mapping[str, Study] = {
    "classification": Study(classification),
    "grades": Study(grades),
    "calibration": Study(calibration),
    "survival": Study(survival),
    "values": Study(values),
    "comparisons": Study(comparisons),
    "calls": Study(calls, 2.5, HOLD_OUT),
    "gaps": Study(gaps),
    "sites": Study(sites, designs=HOLD_OUT),
    "utility": Study(utility),
    "flags": Study(flags, designs=HOLD_OUT),
    "competing": Study(competing),
    "hazards": Study(hazards),
    "method": Study(method, designs=FIVE_FOLDS),
    "sets": Study(sets),
    "cuts": Study(cuts),
    "synthesis": Study(synthesis),
    "curves": Study(curves),
    "added": Study(added),
    "recalibration": Study(recalibration),
}
