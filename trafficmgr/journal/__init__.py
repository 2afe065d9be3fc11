"""The durable log of observed events."""
