"""What a model is trained on: mixtures of domains and a base set."""
