"""How fast a model runs on this machine, and how fast it could."""
