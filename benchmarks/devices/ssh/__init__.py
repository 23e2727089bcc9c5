"""Boards over ssh: the agent is packed, sent with the wheels it needs, and followed."""
