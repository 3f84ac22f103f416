"""Sealing requests into shards: limits, duplicates, reused answers, unique custom_ids."""
