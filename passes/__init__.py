"""The passes that graphopt ships. One pass, one file."""
