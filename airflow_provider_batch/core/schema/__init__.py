"""Column types, strict JSON Schemas, and the judge that validates answers against a schema."""
