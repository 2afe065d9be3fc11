"""The Docker runtime: container groups on the Docker Engine."""

from trafficmgr.runtimes.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
