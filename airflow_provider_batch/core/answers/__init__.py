"""Reading the lines of result files as answers with an outcome."""
