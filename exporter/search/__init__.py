"""Many exports compared: the suite of models and recipes."""
