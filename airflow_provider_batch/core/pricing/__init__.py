"""Prices, and what a job will cost."""
