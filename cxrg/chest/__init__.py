"""What places and findings are called, and where they lie: data and rules, no network."""
