"""The OCI distribution client: polling and pulling."""
