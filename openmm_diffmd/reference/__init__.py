"""Reference trajectories: the physics the model learns."""
