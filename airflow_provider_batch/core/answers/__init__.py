"""From a line of a result file to the outcome of a row."""
