"""Run an artifact in its runtime and compare it with golden values; numpy and the standard library only, Python 3.9 syntax."""
