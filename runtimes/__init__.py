"""Run an artifact in its runtime and compare it with golden values; numpy and standard library, Python 3.9 syntax."""
