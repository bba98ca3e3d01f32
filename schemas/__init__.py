"""The vocabulary of Nexus: what flows over the bus, pure data and pure functions."""
