"""Pages of results, made of committed tables."""
