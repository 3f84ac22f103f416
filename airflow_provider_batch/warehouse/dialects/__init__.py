"""One `Dialect` per database. `base` defines the class, `registry` selects the dialect of a hook."""
