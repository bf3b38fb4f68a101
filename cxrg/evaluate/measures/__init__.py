"""What is measured beside the metrics of heatmaps: leakage, classification, outlines of anatomy."""
