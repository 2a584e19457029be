"""Names of sites that every encoder has. No torch."""

INPUT = "input"
"""Name of the first site, the image itself."""
FIRST_LAYER = "embed"
"""Name of the first layer of a residual stream. The layers of a residual stream are not sites; see `ResidualStream`."""
