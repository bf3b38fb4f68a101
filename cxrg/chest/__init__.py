"""What places and findings are called, and where they are: data and rules, no network."""
