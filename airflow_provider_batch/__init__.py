"""Rows from a warehouse through the OpenAI Batch API, every answer back under its own key."""

__version__ = "0.1.0"
