"""The local batch server: OpenAI's Files and Batches endpoints on loopback, for development and tests.

It speaks OpenAI's wire format over real HTTP, so the real `openai` SDK drives it. It is no production
engine: its answers come from an offline responder that asks no model and says so in the `model` field of
every answer, or from one other server.

    settings    how long each state lasts, which limits hold
    records     the wire objects: file and batch
    errors      OpenAI's error shape
    store       SQLite and files in one directory; survives a kill
    clock       the server's time, which can run faster and jump
    capacity    limits over a span of time, and tokens that wait
    journal     the answers of a running batch, appended one by one
    validation  a batch's input file, checked line by line
    engine      moves each batch through its states; holds those that have not ended as `live`
    results     the result files of a batch
    responder   what answers one request; `offline` does it without a model, `upstream` lets another server do it
    prompt      what a request says; `body_check` refuses what OpenAI would; `schema_answer` (with `classify`),
                `embedding` and `moderation` make the offline answers up, `replies` gives them their shape
    faults      what goes wrong on request and whom it hits; carried out by `answer_faults` (with `spoil`),
                `results`, `batch_faults` and `call_faults`
    app         the HTTP surface, with `files`, `uploads` (files in parts, kept by `upload_store`), `batches`,
                `webhooks` (kept by `webhook_store`, delivered by `courier`) and `endpoints` as its routes
    command     `airflow-batch serve`
    dialects    how others differ from OpenAI, on request; with `growing`, result files that can be read early
    admin       `/admin`: faults, clock and counts, only when asked for
    process     the server as a subprocess, for tests, demo and benchmarks

Nothing here imports Airflow.
"""
