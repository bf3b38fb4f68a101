"""Checkpoint -> model: a diffusers folder becomes networks, and what is known about them."""
