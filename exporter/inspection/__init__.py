"""What lies in an artifact: its tensors and operations, their sizes, and the kernels that run them."""
