"""Read a diffusers folder: its parts, their networks and weights, its identity, fetching it."""
