"""The benchmark: what a gateway adds to a call in time, processor time and memory."""
