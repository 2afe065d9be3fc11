"""What can go wrong with a registry, as sentences for people.

None of these is ever a reason to touch traffic: not to know what a tag names is no change
(promise 12). Whoever catches one shows its text and asks again later.
"""

from trafficmgr.core.errors import TrafficmgrError


class RegistryError(TrafficmgrError):
    """A registry, or our store of what came from it, did not give what was asked for.

    Attributes:
        registry: The registry's host, as in the names of its images.
        retry_after_s: How long the registry asked us to stay away; None if it did not.
    """

    advice = ""

    def __init__(self, registry: str, what: str, *, retry_after_s: float | None = None) -> None:
        text = f"registry {registry}: {what.rstrip('.')}. Traffic stays as it is. {self.advice}"
        super().__init__(text.strip())
        self.registry = registry
        self.retry_after_s = retry_after_s


class RegistryUnreachableError(RegistryError):
    """It can't be reached, does not answer in time, or answers that it is out of order."""

    advice = "We ask again by ourselves; if it lasts, check the registry and the way to it."


class NotFoundError(RegistryError):
    """It answers, but does not have it."""

    advice = "Push it, or correct the image's name."


class UntrustworthyAnswerError(RegistryError):
    """Its answer is garbage, too large, or does not have the digest that it must have."""

    advice = "Nothing of that answer is used; check the registry and what lies between."


class AccessDeniedError(RegistryError):
    """It does not let us in, or we have no credentials that we may send."""

    advice = "Check the credentials under `registries`, or in docker's config.json."


class RateLimitedError(RegistryError):
    """It asks us to come back later (429)."""

    advice = "We wait as long as it asks; credentials usually raise the limit."


class UnusableImageError(RegistryError):
    """The image is sound but not for us: another platform, or layers that we can't unpack."""

    advice = "Build it for this machine."


class StoreError(RegistryError):
    """The image can't be kept on this machine's disk."""

    advice = "Check the space and the permissions of the state_dir."
