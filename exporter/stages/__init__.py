"""The stages of an export, in the order in which `pipeline.py` walks them."""
