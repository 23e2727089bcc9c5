"""What was measured, as data: records, statistics, the history, and comparing two of them."""
