"""Tests of the routes of one job."""
