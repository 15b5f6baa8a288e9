"""How a model is trained and kept."""
