"""Staging: where the files of a job are stored, on a local disk or in an object store."""
