"""The study "When and How Does CLIP Enable Domain and Compositional Generalization?" (ICML 2025).

It uses `circuitry` as any user does: by the names in the tables of contents of its rooms.

    python -m experiments.study                 # lists the programs
    python -m experiments.study NAME --help     # the options of one
"""
