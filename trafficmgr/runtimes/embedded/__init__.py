"""The embedded runtime: container groups as supervised processes of this host."""

from trafficmgr.runtimes.embedded.runtime import EmbeddedRuntime

__all__ = ["EmbeddedRuntime"]
