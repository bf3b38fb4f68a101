"""Metrics of heatmaps and boxes, and their means with intervals. Pure functions."""
