"""One entry per database. `base` says what an entry holds, `registry` finds the one for a hook."""
