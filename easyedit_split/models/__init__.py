"""Loading a model, and everything that differs from one architecture to the next."""
