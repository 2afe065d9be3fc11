"""The single writer: ears turn the world into events, hands carry out commands."""
