"""The pure core: it decides, and never asks what time it is or touches the world."""
