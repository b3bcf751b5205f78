"""Noise: put in while training, taken out while sampling."""
