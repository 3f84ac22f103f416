"""One sink for each kind of database: rows of a job into its results table."""
