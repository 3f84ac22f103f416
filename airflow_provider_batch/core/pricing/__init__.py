"""Prices of models, and the estimated cost of a job."""
