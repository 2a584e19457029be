"""Images sorted by domain and class: readers, captions, mixtures, and the drawn toy data set."""
