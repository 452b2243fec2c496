"""Evaluation of what the stages made."""
