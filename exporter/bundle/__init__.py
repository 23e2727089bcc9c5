"""The folder that an export writes: its manifest, README and schema."""
