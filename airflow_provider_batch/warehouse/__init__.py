"""Rows out of a warehouse and answers back into it, through Airflow's SQL hooks.

`connect` finds the hook, `read` streams a query, `sinks.open` opens the sink for a results table. `sinks/` holds one
for each kind of database, `drivers/` what its driver needs; everything else here is what they share.
"""
