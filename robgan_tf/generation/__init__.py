"""Quality of generated images: features, distances, similarity, scores."""
