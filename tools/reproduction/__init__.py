"""The parts of tools/reproduce.py: what the paper compares, at which scale, and how it is gathered."""
