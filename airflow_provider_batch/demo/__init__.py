"""`airflow-batch demo`: the DAG label_tickets on real Airflow, with all it needs beside it.

    command     the command line
    home        the folder of a demo: where things lie, and the environment that Airflow gets
    tickets     the data set, and the warehouse that it is seeded into
    story       one run, told step by step
    run         the process in which Airflow runs the DAG; reports what happens as JSON lines
    report      what landed: outcomes, tokens, cost, accuracy
    standalone  `airflow-batch demo --airflow`: a full Airflow until Ctrl-C

Only `run` imports Airflow, in a process of its own: Airflow reads its configuration when it is imported.
"""
