"""One adapter a peer: `run(instance, budget, **settings) -> (Record, parameters)`."""
