"""Phrase -> prompt: token embeddings, and which tokens are the phrase's own."""
