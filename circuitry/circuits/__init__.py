"""Find the circuit of a class by attribution, store it, compare it."""
