"""What is simulated: named systems, their states as targets, and their reference ensembles."""

from systems.registry import load, names

__all__ = ["load", "names"]
