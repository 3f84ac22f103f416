"""The local batch server: OpenAI's Files and Batches endpoints on loopback, for development and tests.

It speaks OpenAI's wire format over real HTTP, so the real `openai` SDK drives it. It is no production
engine: its answers come from an offline responder that asks no model and says so in the `model` field of
every answer, or from one other server.

    command     `airflow-batch serve`; `upstream_options` has those for another server behind it
    settings    how long each state lasts, which limits hold
    app         the HTTP surface, with `files`, `uploads` (files in parts, kept by `upload_store`), `batches`,
                `webhooks` and `endpoints` as its routes; `admin` only when asked for
    records     the wire objects: file and batch
    errors      OpenAI's error shape
    store       SQLite and files in one directory; survives a kill
    clock       the server's time, which can run faster and jump
    capacity    limits over a span of time, and tokens that wait
    validation  a batch's input file, checked line by line
    engine      moves each batch through its states; holds those that have not ended as `live`
    journal     the answers of a running batch, appended one by one
    results     the result files of a batch
    answers/    how one request is answered: offline, or by another server
    faults/     what goes wrong on request
    dialects/   how other providers differ, on request; with `partial_results`, result files that can be read early
    webhooks/   who is told when a batch has ended
    process     the server as a subprocess, for tests, demo and benchmarks

Nothing here imports Airflow.
"""
