"""Lower one traced program to a target's file: a target is one module, and a row in target.py."""
