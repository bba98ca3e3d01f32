"""The HTTP edge for clients: stateless, any number of them."""
