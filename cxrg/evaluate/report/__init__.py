"""Records of samples -> a report: summary, page, comparison of two runs."""
