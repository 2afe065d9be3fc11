"""The HTTP API over the unix socket."""
