"""Several processes that train one model: collectives and sharding."""
