"""Classical test collections: small, nasty, with known answers."""
