"""Futures imagined: from what they start, how far they go, and what is kept of them."""
