"""A tower as a chain of stages with sites; weights, prompts, metrics, baselines, autoencoders as bases."""
