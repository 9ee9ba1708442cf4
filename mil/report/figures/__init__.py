"""Figures of a report, one a file; `catalogue` names them."""

from mil.report.figures.catalogue import draw, draw_learning
from mil.report.figures.learning_curve import Course

__all__ = ["Course", "draw", "draw_learning"]
