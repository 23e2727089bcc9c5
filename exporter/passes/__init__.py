"""Compression: a pass is one module with `Settings` and `apply(model, settings, context)`, and a row in recipe.PASSES."""
