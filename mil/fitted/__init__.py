"""What follows from a score: cuts, calibration, sets and refusals, fitted on train or select patients and frozen."""
