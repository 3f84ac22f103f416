"""Rows out of a warehouse and answers back into it, through Airflow's SQL hooks.

`connect` finds the hook, `read` streams a query, `write` opens the sink for a results table. `postgres`,
`sqlite`, `duckdb`, `mysql` and `generic` are the sinks; everything else here is what they share.
"""
