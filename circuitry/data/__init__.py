"""Images by domain and class, their captions, and what a model is trained on."""
