"""Figures of a report, one a file; `catalogue` names them."""

from mil.report.figures.catalogue import FIGURES, draw, draw_learning

__all__ = ["FIGURES", "draw", "draw_learning"]
