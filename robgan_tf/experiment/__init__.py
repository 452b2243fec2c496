"""An experiment: built from gin, described, planned without training, and run."""
