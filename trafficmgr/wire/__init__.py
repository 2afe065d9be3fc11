"""Sans-IO: bytes in, bytes out."""
