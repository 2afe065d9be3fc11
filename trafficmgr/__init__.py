"""trafficmgr: blue-green upgrades of container groups, behind weighted DNS and an HTTP proxy.

Start reading at ARCHITECTURE.md, then `core/rollout.py`.
"""

__version__ = "0.1.0"
