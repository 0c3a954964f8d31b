"""What a coordinator can read off itself when it is asked for its metrics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentos.core.metrics import names
from agentos.core.metrics.readings import Reading, of_counter, of_histograms, process_readings
from agentos.store.counts import counts

if TYPE_CHECKING:
    from agentos.coordinator.pulse import Pulse


def coordinator_readings(pulse: "Pulse") -> Iterable[Reading]:
    """Now."""
    yield from process_readings("coordinator", connected=pulse.database, loop_lag_s=pulse.lag_s)
    yield Reading(names.LEADING, pulse.leading)
    yield from of_histograms(names.DUTY_SECONDS, counts.duties)
    for duty, age_s in pulse.duty_ages().items():
        yield Reading(names.DUTY_AGE, age_s, (duty,))
    yield from of_counter(names.RECLAIMS, counts.reclaims)
    yield from of_counter(names.RETIRED, counts.retired)
    if pulse.leading:
        yield from pulse.observed.readings()
