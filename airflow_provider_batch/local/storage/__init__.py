"""The server's state: one directory that survives a kill.

store         files and batches, in SQLite and beside it
record        a batch as it is stored
journal       the answers of a running batch, appended one by one
upload_store  files that are uploaded in parts
"""
