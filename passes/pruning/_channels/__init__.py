"""What channels cost, and in which order they go."""
