"""Targets of simulated cohorts, one family for each file."""
