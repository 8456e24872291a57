"""What ``quantize-qdq`` is made of: units, ranges, insertion, measured times and losses, the choice."""
