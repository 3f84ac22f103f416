"""The HTTP surface.

app              creates the application: routes, API key check, error handlers
server           what the routes share
files, uploads, batches, webhooks, endpoints   the routes under `/v1`
admin            the routes under `/admin`, which exist only with `--admin`
file_check       checks an uploaded file
partial_results  serves the result files of a batch that is still running
call_faults      middleware that injects faults into API calls
"""
