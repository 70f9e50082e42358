"""The artifact: a TorchScript file that carries its own metadata."""
