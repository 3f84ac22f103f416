"""`airflow-batch demo` runs the DAG label_tickets on real Airflow, with a local warehouse and a local batch server.

    command     the command line
    home        the folder of a demo, and the environment for Airflow
    tickets     the data of label_tickets; `companies`, `documents` and `eval_cases` hold the data of the other DAGs
    story       runs the DAG and prints its progress
    run         the process in which Airflow runs the DAG; it reports events as JSON lines
    report      prints the landed rows: outcomes, tokens, cost, accuracy
    standalone  `airflow-batch demo --airflow`: a full Airflow until Ctrl-C

Airflow reads its configuration on import. So only `run` imports it, in a separate process that gets the demo's
environment.
"""
