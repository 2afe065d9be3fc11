"""What DESIGN knows and this version does not have yet.

A key or value from here is refused with a sentence of its own: it is no typing mistake, and
ignoring it would be worse. Whoever builds one of them moves it from here into `shape`.
"""

LATER_KEYS: dict[str, frozenset[str]] = {
    "FileShape": frozenset({"webhooks", "notifications", "policies", "signatures", "metrics"}),
    "ListenShape": frozenset({"admin"}),
    "ZoneShape": frozenset({"records_file", "records"}),
    "RegistryShape": frozenset({"webhook", "signatures", "rate_limit", "ca_file"}),
    "EndpointShape": frozenset(
        {"routing", "targets", "health", "affinity", "tls", "multivalue", "signatures"}
    ),
    "GroupShape": frozenset({"init_containers", "volumes", "restart", "restart_policy"}),
    "ContainerShape": frozenset(
        {"liveness", "startup", "volumes", "volume_mounts", "restart", "secrets", "user"}
    ),
    "ProbeShape": frozenset({"exec"}),
    "UpdateShape": frozenset(
        {"schedule", "cron", "freeze", "tags", "match", "webhook", "signatures"}
    ),
    "RolloutShape": frozenset({"gates", "compare", "freeze", "schedule", "approval"}),
    "DrainShape": frozenset({"tcp"}),
}
"""Shape -> keys that belong there one day."""

LATER_VALUES: dict[str, frozenset[str]] = {
    "runtime": frozenset({"docker", "podman", "kubernetes"}),
    "rootfs": frozenset({"image"}),
    "policy": frozenset({"semver", "newest", "tag", "pattern"}),
}
"""Key -> values that it will take one day."""

ELSEWHERE: dict[str, str] = {
    "<<": "merge keys are not read; write the keys out",
    "password": "write the password into a file of its own and name it: password_file",
}
"""Unknown keys that people do write, and what to do instead."""
