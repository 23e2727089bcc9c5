"""What travels to a board, and runs here too, on Python 3.9, numpy and one runtime: measure artifacts, tell events."""
