"""Names of sites that every encoder has. No torch."""

INPUT = "input"
"""Name of the first site, the image itself."""
