"""All that has an optimiser: training the compact model, and tuning an adapter."""
