"""What DESIGN knows and this version does not have yet.

A key or value from here is refused with a sentence of its own: it is no typing mistake, and
ignoring it would be worse. Whoever builds one of them moves it from here into `shape`.
"""

LATER_KEYS: dict[str, frozenset[str]] = {
    "FileShape": frozenset({"webhooks", "notifications", "policies", "signatures", "metrics"}),
    "ListenShape": frozenset({"admin"}),
    "ZoneShape": frozenset({"records_file", "records"}),
    "RegistryShape": frozenset({"webhook", "signatures", "rate_limit", "ca_file"}),
    "EndpointShape": frozenset({"routing", "targets", "health", "multivalue", "signatures"}),
    "ContainerShape": frozenset({"startup"}),
    "UpdateShape": frozenset(
        {"schedule", "cron", "freeze", "tags", "match", "webhook", "signatures"}
    ),
    "RolloutShape": frozenset({"freeze", "schedule", "approval"}),
    "DrainShape": frozenset({"tcp"}),
}
"""Shape -> keys that belong there one day."""

LATER_VALUES: dict[str, frozenset[str]] = {
    "runtime": frozenset({"kubernetes"}),
    "kind": frozenset({"kubernetes"}),
    "rootfs": frozenset({"image"}),
    "policy": frozenset({"semver", "newest", "tag", "pattern"}),
}
"""Key -> values that it will take one day."""

ELSEWHERE: dict[str, str] = {
    "<<": "merge keys are not read; write the keys out",
    "password": "write the password into a file of its own and name it: password_file",
    "restart_policy": 'did you mean "restart"?',
    "environment": 'did you mean "env"?',
    "volume_mounts": 'did you mean "mounts"?',
    "mount_path": 'did you mean "path"?',
    "initial_delay_seconds": 'did you mean "initial_delay"?',
    "period": 'did you mean "every"?',
    "period_seconds": 'did you mean "every"?',
    "timeout_seconds": 'did you mean "timeout"?',
    "failure_threshold": 'did you mean "fall"?',
    "success_threshold": 'did you mean "rise"?',
    "grace_period": 'did you mean "stop_grace"?',
    "lifecycle": 'did you mean "pre_stop"?',
    "analysis": 'did you mean "gates"?',
    "success_rate": "write the share that may fail: max_error_rate: 1%",
    "session_affinity": 'did you mean "affinity"?',
    "sticky": 'did you mean "affinity"?',
    "path_prefix": "write the paths of the endpoint: http: {paths: [/api]}",
    "max_conns": 'did you mean "max_requests"?',
    "outlier_detection": 'did you mean "ejection"?',
    "ssl": "write tls: at the top level",
    "cert_file": 'did you mean "certificate"?',
    "key_file": 'did you mean "key"?',
    "secure_value": "write the value to a file and name it: value_from: {file: ...}",
}
"""Unknown keys that people do write, and what to do instead. Read without regard to case and
underscores, so that `volumeMounts` is among them."""

NOT_HERE: dict[tuple[str, str], str] = {
    **{
        (shape, "tls"): "certificates are for all hosts: tls: at the top level"
        for shape in ("EndpointShape", "ListenShape", "FrontShape", "HttpPolicyShape")
    },
    **{
        ("EndpointShape", key): 'did you mean "paths"? it belongs to "http": http: {paths: [/api]}'
        for key in ("path", "paths")
    },
    ("CertificateShape", "cert"): 'did you mean "certificate"?',
    ("EndpointShape", "https"): "addresses are for all endpoints: listen: {https: [...]}",
    ("HttpPolicyShape", "affinity"): "it stands beside http:",
    ("HttpPolicyShape", "retries"): "what is safe is retried, within retry_budget: 20%",
    ("FrontShape", "listen"): "addresses are written into listen: {http: [...]}",
    ("AffinityShape", "client"): "write it alone: affinity: client",
    ("LivenessShape", "rise"): "one pass is enough to be alive: remove it",
    ("SecretShape", "value"): "a value has no place here: write it to a file, and file: its path",
    ("SecretShape", "secret"): "name a file or a variable: {file: /run/secrets/token}",
    **{
        ("InitContainerShape", key): "an init container only runs to its end: remove it"
        for key in ("ports", "readiness", "liveness", "pre_stop")
    },
    ("PreStopShape", "tcp"): "opening a connection stops nothing: write exec: or http:",
    ("ContainerShape", "restart"): "it belongs to the group: all its containers have the same",
    ("ContainerShape", "volumes"): "volumes belong to the group; here they are mounts:",
    **{
        ("CheckShape", kind): f"it belongs to a probe: probe: {{{kind}: {check}}}"
        for kind, check in (("tcp", "{}"), ("exec", "{command: [./check]}"))
    },
    ("CheckShape", "container"): "it belongs to the exec of a probe, inside of probe:",
    ("JsonCheckShape", "path"): "write the whole address into url:, what to compare into json:",
    ("AfterHookShape", "reversible"): "nothing goes back after it: remove it",
    **{
        ("SmokeShape", key): f"it belongs to a request: requests: [{{path: /, {key}: ...}}]"
        for key in ("status", "body")
    },
    ("SmokeShape", "path"): "it belongs to a request: requests: [{path: /}]",
}
"""(Shape, unknown key) -> what to do, where the nearest key would mislead."""

VALUES_ELSEWHERE: dict[str, str] = {
    "cookie": "name one: {cookie: visitor}",
    "header": "name one: {header: x-user}",
    "least_requests": "write least-requests",
    "round_robin": "write round-robin",
    "leastconn": "write least-requests",
    "podman": "write {kind: docker, host: unix:///run/podman/podman.sock}",
}
"""Unknown values that people do write, and what to do instead."""


def hint_of(shape: str, key: str) -> str:
    """Return what to do about an unknown key of a shape, or ""."""
    return NOT_HERE.get((shape, key)) or _BARE.get(_bare(key), "")


def _bare(key: str) -> str:
    return key.replace("_", "").lower()


_BARE = {_bare(key): hint for key, hint in ELSEWHERE.items()}
