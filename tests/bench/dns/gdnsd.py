"""gdnsd's config and zone: plugin_weighted, one address per answer, one UDP thread."""

from collections.abc import Sequence
from pathlib import Path

from bench.dns import zone
from bench.dns.zone import Host

_OPTIONS = """\
options => {{
  listen => 127.0.0.1:{port}
  udp_threads => 1
  tcp_threads => 1
  udp_rcvbuf => 1048576
  udp_sndbuf => 1048576
  run_dir => {work}/run
  state_dir => {work}/state
}}
plugins => {{ weighted => {{
  multi => false
{resources}
}} }}
"""

_ZONE = f"""\
$TTL 300
@ {zone.NEGATIVE_TTL_S} SOA ns1 hostmaster 1 3600 600 86400 {zone.NEGATIVE_TTL_S}
@ NS ns1
ns1 A {zone.SERVER_ADDRESS}
"""


def write(work: Path, port: int, hosts: Sequence[Host]) -> list[str]:
    """Write gdnsd's files to a folder; returns the command that serves them."""
    (work / "zones").mkdir()
    resources = "\n".join(_resource(f"r{n}", host) for n, host in enumerate(hosts))
    config = _OPTIONS.format(port=port, work=work, resources=resources)
    (work / "config").write_text(config, "utf-8")
    records = (
        f"{host.name}. {zone.TTL_S}/{zone.TTL_S} DYNA weighted!r{n}\n"
        for n, host in enumerate(hosts)
    )
    (work / "zones" / zone.APEX).write_text(_ZONE + "".join(records), "utf-8")
    return ["gdnsd", "-c", str(work), "start"]


def _resource(name: str, host: Host) -> str:
    families = [f"addrs_v4 => {{ {_items(host.v4)} }}"]
    if host.v6:
        families.append(f"addrs_v6 => {{ {_items(host.v6)} }}")
    return f"  {name} => {{ {', '.join(families)} }}"


def _items(addresses: Sequence[str]) -> str:
    return ", ".join(
        f'a{n} => ["{address}", {weight}]'
        for n, (address, weight) in enumerate(zip(addresses, zone.WEIGHTS, strict=True))
    )
