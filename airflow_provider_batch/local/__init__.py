"""The local batch server: OpenAI's Files and Batches endpoints on loopback, for development and tests.

It speaks OpenAI's wire format over real HTTP, so the real `openai` SDK drives it. It is not a production
engine. Its answers come from an offline responder, which calls no model and says so in the `model` field of
every answer, or from one other server.

From the top down; each room imports only from the rooms below it:

    process     runs the server as a subprocess, for tests, the demo and benchmarks
    command     `airflow-batch serve`; `upstream_options` holds its options for another server that answers
    http/       the routes, the API key, and the faults of calls
    engine/     moves each batch through its states: checks its input file, runs it, writes its result files
    webhooks/   delivers a webhook when a batch has ended
    answers/    how one request is answered: offline or by another server, and the faults of answers
    storage/    one directory that survives a kill: SQLite, files, and a journal for each running batch
    settings    how long each state lasts, and which limits hold
    faults      decides what goes wrong on request
    dialects/   how other providers differ, on request
    api/        what the API looks like: its files, batches, errors and token counts
    clock       the server's time, which can run faster and jump

Nothing here imports Airflow, or anything else of the provider.
"""
