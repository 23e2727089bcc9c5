"""What compression cost and gave: rows, limits, and the report of them."""
