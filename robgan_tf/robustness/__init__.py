"""How robust a classifier is: accuracy under attack, checks of it, corruptions, Lipschitz values."""
