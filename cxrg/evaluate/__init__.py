"""Honest evaluation of phrase grounding: datasets, metrics, controls, reports."""
