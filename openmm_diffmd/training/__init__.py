"""Training of transition models with Lightning."""
