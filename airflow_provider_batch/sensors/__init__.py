"""Sensors of the OpenAI Batch provider."""
