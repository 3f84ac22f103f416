"""Columns, strict JSON Schema, and the judge that checks an answer against it."""
