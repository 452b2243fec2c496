"""Layers of the players: spectral normalisation, conditional batch norm, residual blocks."""
