"""The attacker: threat models, what attacks maximise, and the attacks themselves."""
