"""Image -> noisy latents at chosen timesteps: inversion, added noise, or noise resampled at every
step.
"""
