"""Training of the small network that tells a frontal chest X-ray from other pictures."""
