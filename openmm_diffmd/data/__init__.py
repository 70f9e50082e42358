"""Frames on disk to lagged training pairs."""
