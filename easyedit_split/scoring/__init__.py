"""How likely a model finds each answer of a pair: the losses that everything else is made of (Eq. 28)."""
