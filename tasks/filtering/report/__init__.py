"""Reports of the filter: counts by reason, a plot, and rows kept at other thresholds."""
