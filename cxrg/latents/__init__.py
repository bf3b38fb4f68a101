"""Image -> noisy latents at chosen timesteps: inversion, added noise, or noise drawn afresh."""
