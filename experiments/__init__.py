"""Questions to the package, a script each, and the study that it was written for."""
