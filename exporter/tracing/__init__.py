"""From a module to the traced program that every target lowers."""
