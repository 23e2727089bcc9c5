"""The commands that measure: one file a command, or a group that shares its options."""
