"""From answers to rows of the results table."""
