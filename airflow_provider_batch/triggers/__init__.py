"""Triggers: what runs in the triggerer while the provider works on batches."""
