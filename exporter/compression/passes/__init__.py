"""Compression: a pass is a module with `Settings` and `apply(model, settings, context)`, and a row in recipe.PASSES."""
