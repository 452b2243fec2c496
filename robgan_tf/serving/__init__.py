"""What leaves the project: SavedModels that need TensorFlow alone."""
