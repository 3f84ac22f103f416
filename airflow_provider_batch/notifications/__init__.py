"""Notifications about jobs: by Slack, by mail, or by any other notifier of Airflow."""

from __future__ import annotations

from airflow_provider_batch.notifications.notifier import BatchJobNotifier

__all__ = ["BatchJobNotifier"]
