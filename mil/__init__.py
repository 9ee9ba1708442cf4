"""A multiple-instance-learning model zoo with a training command line for computational pathology."""

__version__ = "0.1.0"
