"""``kt.toml``: the settings of one directory and of the processes that serve it."""
