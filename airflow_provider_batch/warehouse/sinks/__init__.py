"""One sink for each kind of database. A sink writes the rows of a job to its results table."""
