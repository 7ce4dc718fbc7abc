"""What the filter did: counts by reason, a plot, and what other thresholds would keep."""
