"""What surrounds a run: its directory, checkpoints, devices and workers, signals, records of what was measured."""
