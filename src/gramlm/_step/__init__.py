"""One Jacobian and the trials with it."""
