"""Probe results in, readiness edges out.

A group becomes ready after `rise` passes in a row and unready after `fall` failures in a row.
Samples never reach the journal, only the edges do (DESIGN 5). After a controller's restart the
count begins anew from the edge that the journal knows, so that nothing is unready until `fall`
fresh probes have failed.
"""

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import Probe


class Health(Noun):
    """Whether a group is ready, and how many probes in a row disagreed with that."""

    is_ready: bool = False
    disagreeing: int = 0

    def after(self, *, passed: bool, probe: Probe) -> "Health":
        """Return the health after one more probe."""
        if passed == self.is_ready:
            return self.but(disagreeing=0)
        enough = probe.fall if self.is_ready else probe.rise
        if self.disagreeing + 1 < enough:
            return self.but(disagreeing=self.disagreeing + 1)
        return Health(is_ready=passed)
