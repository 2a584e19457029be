"""The names of the first site of an encoder and of the first layer of a residual stream. Does not import torch."""

INPUT = "input"
"""Name of the first site, the image itself."""
FIRST_LAYER = "embed"
"""Name of the first layer of a residual stream. The layers of a residual stream are not sites; see `ResidualStream`."""
