"""A report as a page that a reviewer reads from top to bottom."""
