"""Compression: recipes, and the model that their passes work on."""
