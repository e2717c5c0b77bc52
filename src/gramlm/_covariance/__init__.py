"""How well the data determine the parameters, and what is computed from them."""
