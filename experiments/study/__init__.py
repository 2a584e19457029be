"""The study "When and How Does CLIP Enable Domain and Compositional Generalization?" (ICML 2025), from the checkout.

The programs use only public names of `circuitry`, as every user does.

    python -m experiments.study                 # lists the programs
    python -m experiments.study NAME --help     # prints the options of a program
"""
