"""Files that come with the package; read without PyTorch."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"
"""Folder of the bundled models and of their reference."""
