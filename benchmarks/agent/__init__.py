"""What travels to a board, and runs here too: measure artifacts in processes of their own and tell events as they come.

Python 3.9, the standard library, numpy and one runtime; nothing else of the project but the runtime files.
"""
