"""Read rows from a warehouse and write answers back to it, through Airflow's SQL hooks.

`connect` resolves a connection to its hook, `read` streams the rows of a query, and `sinks.open` opens a results table
for writing. `sinks/` has one sink per kind of database, `drivers/` handles what differs between database drivers, and
`dialects/` describes each database. The other modules are shared by them.
"""
