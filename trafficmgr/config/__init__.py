"""YAML in, typed settings out; every problem at once, each with its place."""
