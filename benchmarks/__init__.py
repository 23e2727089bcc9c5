"""Measure artifacts, and what peers do with the same model."""
