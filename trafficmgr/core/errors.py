"""Errors of the core. Edges translate them into sentences for people (STYLE.md, Errors)."""


class TrafficmgrError(Exception):
    """Base of every error that trafficmgr raises on purpose; its text is a whole sentence."""


class NotPossibleNowError(TrafficmgrError):
    """An operator asked for something that the endpoint's present phase does not allow."""
