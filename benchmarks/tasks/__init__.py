"""Real tasks whose labels are made on the machine: data for the benchmark's models, as a user gives it."""
