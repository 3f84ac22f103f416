"""What OpenLineage reports of the tasks of a job. Only Airflow's OpenLineage provider makes the tasks import it.

`tasks` says which datasets a task reads and writes, `database` names tables as the official SQL providers do, and
`facets` describes datasets and jobs with the classes of OpenLineage's client.
"""
