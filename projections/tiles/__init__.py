"""Both logs of a directory as files, for any web server."""
