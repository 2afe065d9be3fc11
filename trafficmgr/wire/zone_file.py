"""Zone files: the text of RFC 1035 section 5 in, records as plain data out.

dnspython reads the text; it knows every type, and that of RFC 3597 for those that it doesn't. It
stops at the first thing that it can't read. All else that is wrong is collected: here for single
records, in `zone_checks` for the zone, so that one look at a file shows what to change.

A file must say all that it says by itself: `$INCLUDE` would read other files, and `$GENERATE` is
no part of the RFC. Nothing is signed here, so records of DNSSEC are refused: resolvers that
validate would find signatures that do not match what we synthesise, and fail.

Lines are those on which a record begins. dnspython tells no lines to whom it gives records, but it
asks its tokenizer in a special way for the first word of each, and there we look.

Sources: RFC 1035 section 5, 2308 section 4 ($TTL), 3597 section 5, 2181 section 8 (TTLs).
"""

import ipaddress
from typing import Any

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.transaction
import dns.ttl
import dns.zonefile

from trafficmgr.wire.dns import MAX_TTL_S, wire_name
from trafficmgr.wire.zone_checks import problems
from trafficmgr.wire.zone_records import (
    MX,
    SRV,
    Problem,
    Record,
    RRset,
    Written,
    ZoneFileError,
    ZoneText,
    type_name,
)

_T = dns.rdatatype.RdataType

_DNSSEC = frozenset(
    {_T.RRSIG, _T.DNSKEY, _T.NSEC, _T.NSEC3, _T.NSEC3PARAM, _T.DS, _T.CDS, _T.CDNSKEY}
    | {_T.SIG, _T.KEY, _T.NXT, _T.DLV}
)

_FORMS = {
    "SOA": "<first name server> <mailbox> 1 86400 7200 3600000 300",
    "NS": "ns1.example.",
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "CNAME": "www.example.",
    "PTR": "www.example.",
    "MX": "10 mail.example.",
    "TXT": '"any text"',
    "SRV": "10 5 443 www.example.",
    "CAA": '0 issue "ca.example"',
}
"""Type -> how its data looks, for whoever wrote it otherwise."""

_DIRECTIVES = {
    "$TTL": 'write it as "$TTL 3600"',
    "$ORIGIN": 'write it as "$ORIGIN sub.example."',
    "$INCLUDE": "a zone is one file: write the records of the other one here",
    "$GENERATE": "it is no part of RFC 1035: write each record",
}

_MOST_SHOWN = 40  # letters of a word that may be a page long

_READ = ("$ORIGIN", "$TTL")

_POINTING = frozenset({_T.NS, _T.CNAME, MX, SRV})
"""Types whose data ends with a host's name, where an address is often put instead."""


def read(text: str, *, name: str, origin: str) -> ZoneText:
    """Read a zone file.

    Args:
        text: All of it.
        name: What the file is called in problems.
        origin: The zone's name, with or without the last dot; `$ORIGIN` until the file says other.

    Raises:
        ZoneFileError: The file can't be served; it has all problems.
        ValueError: `origin` is no name.
    """
    apex = wire_name(origin)
    tokens = _Tokens(text.removeprefix("\ufeff"), name)
    records = _Records(tokens)
    reader = dns.zonefile.Reader(tokens, dns.rdataclass.IN, records, allow_directives=_READ)
    # The records' own origin is the root, as a Reader leaves out what is not below it. We don't.
    reader.current_origin = reader.last_name = dns.name.from_wire(apex, 0)[0]
    try:
        reader.read()
    except (dns.exception.DNSException, ValueError) as error:  # int() has a limit of digits
        records.problems.append(Problem(tokens.line, _unreadable(tokens, error)))
    else:
        records.problems.extend(problems(apex, records.written))
    if records.problems:
        raise ZoneFileError(name, records.problems)
    return ZoneText(origin=apex, rrsets=_rrsets(records.written))


def _rrsets(written: list[Written]) -> dict[bytes, dict[int, RRset]]:
    rrsets: dict[bytes, dict[int, RRset]] = {}
    for record, _ in written:
        of_owner = rrsets.setdefault(record.owner, {})
        before = of_owner.get(record.rtype)
        rdatas = (*before.rdatas, record.rdata) if before else (record.rdata,)
        of_owner[record.rtype] = RRset(ttl_s=record.ttl_s, rdatas=rdatas)
    return rrsets


# -- reading --------------------------------------------------------------------------------------


class _Tokens(dns.tokenizer.Tokenizer):
    """The words of a zone file, and where and with what the present record began.

    `words` has one twice that the Reader looked at and put back. So the first is never the type:
    it is the owner or, after leading blanks, the first copy of what follows them.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, name)
        self.line = 1
        self.words: list[str] = []

    def get(self, want_leading: bool = False, want_comment: bool = False) -> dns.tokenizer.Token:
        if want_leading:  # a Reader looks for the start of a line
            self.line, self.words = self.where()[1], []
        token = super().get(want_leading, want_comment)
        if token.is_identifier() or token.is_quoted_string():
            self.words.append(token.value)
        return token


class _Records(dns.transaction.Transaction):
    """Where a Reader puts records; also such as are refused."""

    def __init__(self, tokens: _Tokens) -> None:
        super().__init__(dns.zonefile.RRSetsReaderManager(dns.name.root))
        self.written: list[Written] = []
        self.problems: list[Problem] = []
        self._tokens = tokens
        self._refused: set[int] = set()
        self._seen: set[tuple[bytes, int, dns.rdata.Rdata]] = set()

    def add(self, *args: Any) -> None:  # noqa: ANN401  as the base class has it
        name, ttl_s, rdata = args
        line, owner, data = self._tokens.line, name.canonicalize().to_wire(), _encoded(rdata)
        self.problems.extend(Problem(line, text) for text in _faults(self._tokens, ttl_s, rdata))
        if (refusal := _refusal(rdata.rdtype)) is not None:
            if rdata.rdtype not in self._refused:  # a signed zone has thousands
                self._refused.add(rdata.rdtype)
                self.problems.append(Problem(line, refusal))
        elif rdata.rdtype == _T.SOA or (owner, ttl_s, rdata) not in self._seen:
            self._seen.add((owner, ttl_s, rdata))  # the same again is the same (RFC 2181)
            self.written.append(Written(Record(owner, int(rdata.rdtype), ttl_s, data), line))

    def _set_origin(self, origin: dns.name.Name | None) -> None:
        """Hear of an `$ORIGIN`, which the Reader itself obeys."""


def _encoded(rdata: dns.rdata.Rdata) -> bytes:
    try:
        return rdata.to_wire() or b""
    except Exception as error:  # as dnspython treats what it trips over when it reads rdata
        raise ValueError(str(error)) from error


# -- what is wrong --------------------------------------------------------------------------------


def _faults(tokens: _Tokens, ttl_s: int, rdata: dns.rdata.Rdata) -> list[str]:
    """Return what is wrong with a record that could be read."""
    faults = []
    if ttl_s > MAX_TTL_S:
        faults.append(_long_ttl(str(ttl_s)))
    if rdata.rdtype in _POINTING and _is_address(target := tokens.words[-1]):
        faults.append(
            f"{type_name(rdata.rdtype)} points to the address {target}, but wants a name; "
            "write the name of a host, and the address as its A or AAAA record"
        )
    return faults


def _refusal(rtype: int) -> str | None:
    """Return why a type has no place in a zone file of ours; None if it has."""
    name = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rtype))
    if rtype == _T.TYPE0 or dns.rdatatype.is_metatype(dns.rdatatype.RdataType.make(rtype)):
        return f"{name} belongs to messages and is no record of a zone; remove it"
    if rtype in _DNSSEC:
        return f"{name} is for signed zones, and nothing is signed here; serve this zone unsigned"
    if rtype == _T.DNAME:
        return "DNAME is not synthesised here; write a CNAME for each name, or for a wildcard"
    return None


def _unreadable(tokens: _Tokens, error: Exception) -> str:
    """Return what stopped the reader: its own words, and ours about what to write."""
    file, line = tokens.where()
    detail = str(error).removeprefix(f"{file}:{line}: ").rstrip(".")
    first = tokens.words[0].upper() if tokens.words else ""
    if first.startswith("$"):
        if first not in _READ:
            return f"{first} is not read; {_DIRECTIVES.get(first, 'remove it')}"
        return f"can't read this {first}: {detail}; {_DIRECTIVES[first]}"
    rclass, rtype = _class_and_type(tokens)
    if (fault := _head_fault(rclass, rtype)) is not None:
        return fault
    if "default TTL" in detail:
        return 'the record has no TTL, and none came before; write "$TTL 3600" at the top'
    return f"can't read this {rtype or 'resource'} record: {detail}; {_example(rtype)}"


def _head_fault(rclass: dns.rdataclass.RdataClass, rtype: str) -> str | None:
    """Return what is wrong with a record before its data; None if it is the data."""
    number = _type_number(rtype)
    if rtype.isdecimal():
        return _long_ttl(rtype)
    if number is None and rtype:
        return (
            f'there is no type "{_shown(rtype)}"; '
            "write a type's name, or TYPE<number> \\# <length> <hex>"
        )
    if number is not None and (refusal := _refusal(number)) is not None:
        return refusal
    if rclass != dns.rdataclass.IN:
        name = dns.rdataclass.to_text(rclass)
        return f"class {name} is not served, only IN; remove the record, or leave out the class"
    return None


def _example(rtype: str) -> str:
    form = _FORMS.get(rtype.upper())
    kind = f"{rtype.upper()} {form}" if form else "<type> <data>"
    return f"write it as: <name> 3600 IN {kind}"


def _class_and_type(tokens: _Tokens) -> tuple[dns.rdataclass.RdataClass, str]:
    """Return the class of the record that can't be read, and the word where its type should be."""
    rclass = dns.rdataclass.IN
    for word in tokens.words[1:]:
        if _is_ttl(word):
            continue
        number = _type_number(word)
        try:
            found = dns.rdataclass.from_text(word)
        except (dns.exception.DNSException, ValueError):
            return rclass, word
        if number is not None:  # ANY is both; as a class it is as wrong
            return rclass, word
        rclass = found
    return rclass, ""


def _type_number(word: str) -> int | None:
    try:
        return int(dns.rdatatype.from_text(word))
    except (dns.exception.DNSException, ValueError):
        return None


def _is_ttl(word: str) -> bool:
    try:
        dns.ttl.from_text(word)
    except (dns.ttl.BadTTL, ValueError):
        return False
    return True


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word.removesuffix("."))
    except ValueError:
        return False
    return True


def _long_ttl(ttl_s: str) -> str:
    return f"a TTL of {_shown(ttl_s)} is over {MAX_TTL_S} (RFC 2181 section 8); write a day, 86400"


def _shown(word: str) -> str:
    return word if len(word) <= _MOST_SHOWN else f"{word[:_MOST_SHOWN]}..."
