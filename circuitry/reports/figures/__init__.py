"""Charts: tidy tables become plotly figures."""
