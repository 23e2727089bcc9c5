"""What surrounds a model: raw inputs to tensors, and outputs to answers."""
