"""Carries out the steps that the lifecycle decides on."""
