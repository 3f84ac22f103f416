"""The client through which a job calls its provider."""
