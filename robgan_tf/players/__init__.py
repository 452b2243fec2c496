"""The players: generator, discriminator (and other classifiers), attacker. None of them imports another."""
