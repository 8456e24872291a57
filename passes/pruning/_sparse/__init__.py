"""Which single weights go, and how the others are fitted."""
