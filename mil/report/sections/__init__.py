"""The parts of a report, one question each, and what they alone need."""
