"""Turning answers into rows of the results table."""
