"""Synthetic frontal chest X-rays with exact truth: anatomy, findings, and the words for them."""
