"""What simulated cohorts can be about: one family of targets a file."""
