"""The commands of `pocketship`: one file a group of them, and their screen."""
