"""Names of measures, in figures and sentences."""

MEASURE_NAMES = {
    "edge_jaccard": "edge Jaccard index",
    "wl_kernel": "Weisfeiler-Lehman kernel, depth 1",
    "spearman": "Spearman's correlation of scores",
    "cosine": "cosine of scores",
    "edge_spearman": "Spearman's correlation of edge scores",
    "cka_linear": "CKA, linear kernel",
    "cka_rbf": "CKA, rbf kernel",
}
"""Names of measures in figures and sentences; other measures are named as their files, with spaces."""


def measure_name(measure: str) -> str:
    """Return the name of a measure in figures and sentences."""
    of_depth = measure.replace("wl_kernel_depth_", "Weisfeiler-Lehman kernel, depth ")
    return MEASURE_NAMES.get(measure, of_depth.replace("_", " "))
