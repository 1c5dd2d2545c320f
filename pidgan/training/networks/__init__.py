"""Networks that the families are made of."""
