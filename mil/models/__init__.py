"""Bag models, one paper for each file."""
