"""Weights of few bits: the values, their scales, and how they travel with a traced program."""
