"""Attention -> heatmap, threshold, boxes and presence."""
