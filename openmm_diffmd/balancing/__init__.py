"""What heat the rollouts of a model show, taken from its weights."""
