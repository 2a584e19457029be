"""Compare domains by activations (CKA, probes), features and embeddings: the study's measures beside circuits."""
