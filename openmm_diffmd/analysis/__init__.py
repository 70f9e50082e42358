"""Trajectories to numbers, a table and a picture. Never imports training or openmm."""
