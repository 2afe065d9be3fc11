"""The worker process: DNS and HTTP sockets, the newest tables, nothing else."""
