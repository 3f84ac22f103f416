"""Operators of the OpenAI Batch provider."""
