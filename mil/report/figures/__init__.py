"""Figures of a report, one a file; `catalogue` names them."""

from mil.report.figures.catalogue import draw, draw_learning

__all__ = ["draw", "draw_learning"]
