"""How good generated images are: features, distances, similarity, scores."""
