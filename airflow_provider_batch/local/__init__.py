"""The local batch server: OpenAI's Files and Batches endpoints on loopback, for development and tests.

It speaks OpenAI's wire format over real HTTP, so it works with the real `openai` SDK. It is not meant for
production. By default an offline responder generates the answers: it calls no model, and the `model` field of
every answer says so. With `--upstream`, another server answers instead.

Parts of this package, from top to bottom. Each imports only from the parts below it:

    process     runs the server as a subprocess, for tests, the demo and benchmarks
    command     `airflow-batch serve`; `upstream_options` defines its `--upstream` options
    http/       routes, API key check, and injected faults of API calls
    engine/     moves each batch through its states: validates its input file, runs it, writes its result files
    webhooks/   delivers a webhook when a batch ends
    answers/    answers one request, offline or through the upstream, and injects faults into answers
    storage/    a state directory that survives a kill: SQLite, files, and one journal per running batch
    settings    durations, limits and other settings of one server
    faults      decides which injected fault hits which row, call, batch or file
    dialects/   optional differences from OpenAI, modelled on other providers
    api/        wire format: file and batch objects, errors, token counts
    clock       the server's clock, which can run faster than real time and jump ahead

Nothing here imports Airflow or any other part of the provider.
"""
