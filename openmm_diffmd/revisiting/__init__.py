"""The reference force where the rollouts of a model have been, as training data."""
