"""Classifiers: the discriminator's class branch, and networks that know no generator."""
