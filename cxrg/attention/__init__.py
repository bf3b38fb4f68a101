"""Latents and prompt -> attention of the prompt's tokens, per layer and timestep."""
