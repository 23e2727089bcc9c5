"""Training: of passes that distill, and of the zoo's own models."""
