"""Compare domains by activations, features and embeddings."""
