"""Child processes and signals: what is started is ended."""
