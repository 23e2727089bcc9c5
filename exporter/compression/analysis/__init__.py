"""What passes know of a model: its calibration, what weights and layers matter, and what fewer bits would cost."""
