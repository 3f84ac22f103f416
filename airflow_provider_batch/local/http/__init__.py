"""The HTTP surface.

app              puts the server together: routes, API key, error handlers
server           what the routes share
files, uploads, batches, webhooks, endpoints   the routes under `/v1`
admin            the routes under `/admin`, only with `--admin`
file_check       checks an uploaded file
partial_results  result files that can be read while their batch runs
call_faults      middleware that carries out the faults of calls
"""
