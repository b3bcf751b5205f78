"""Worlds to act in. Torch-free."""
