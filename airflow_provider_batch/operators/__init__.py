"""Operators that submit batch jobs, land their answers, and grade evals."""
