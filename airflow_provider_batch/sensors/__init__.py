"""Sensor that waits for batch jobs."""
