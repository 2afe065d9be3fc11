"""What runs container groups: one contract, several engines."""
