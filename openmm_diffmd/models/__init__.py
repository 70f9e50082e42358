"""The equivariant geometric Transformer and the transition model built on it."""

from openmm_diffmd.models.transition import TransitionModel

__all__ = ["TransitionModel"]
