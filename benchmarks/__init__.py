"""Measurements of the package's time and memory, side by side with other tools."""
