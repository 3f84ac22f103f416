"""The server's state: one directory that survives a kill.

store         files and batches: metadata in SQLite, contents on disk
record        a batch as it is stored
journal       the answers of a running batch, in an append-only file
upload_store  files that are uploaded in parts
"""
