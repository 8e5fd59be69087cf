"""Numbers for Prometheus: GET /metrics. The ledger counts turns; this adds what a sum can't tell, and gauges.

`observe` is given every turn record (beside the ledger) and keeps histograms of flushes and of the writer's groups, and the
frames that turns sent. Gauges are read by callbacks when somebody scrapes, so nothing is counted twice and nothing has to
be kept up to date. The totals of all loops are the ledger's own (`Panel.metrics`). One registry per server, no global one.

    metrics = Metrics(panel.metrics)
    metrics.gauge("viewers", "registered connections", lambda: len(audience))
    record(turn) -> ledger.record(turn); metrics.observe(turn)

A gauge whose callback raises is left out of that scrape: a number that is unknown must not look like one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.batching import ledger
from server.batching.loop import TurnRecord

FLUSH: Final = "scores"
INGEST: Final = "ingest"
PREFIX: Final = "batchcast"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Read: TypeAlias = Callable[[], float | Mapping[str, float]]

log = structlog.get_logger()


class Metrics:
    """One server's numbers."""

    def __init__(self, loops: Callable[[], Sequence[ledger.Metric]] = tuple) -> None:
        self._registry = CollectorRegistry()
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        self._registry.register(_Loops(loops))
        ProcessCollector(registry=self._registry)
        self._flushes = self._counter("flushes", "turns of the flush, by outcome", "outcome")
        self._flush_seconds = self._histogram("flush_seconds", "how long a flush took")
        self._frames_sent = self._counter("frames_sent", "frames that turns handed over, by loop", "loop")
        self._frames_deferred = self._counter(
            "frames_deferred", "frames owed to connections that were not free", "loop"
        )
        self._ingest_rows = self._counter("ingest_rows", "rows written, by outcome", "outcome")
        self._ingest_seconds = self._histogram("ingest_seconds", "how long a group of rows took to commit")
        for outcome in ("ok", "failed"):
            self._flushes.labels(outcome)

    def observe(self, record: TurnRecord) -> None:
        """Take one turn into account."""
        sent = record.detail.get("frames")
        if sent is not None:
            self._frames_sent.labels(record.loop).inc(float(sent))
            owed = record.detail.get("owed", record.deferred)
            self._frames_deferred.labels(record.loop).inc(float(owed))
        if record.loop == FLUSH:
            self._flushes.labels("ok" if record.error is None else "failed").inc()
            self._flush_seconds.observe(record.seconds)
        if record.loop == INGEST and record.taken:
            self._ingest_rows.labels("accepted").inc(record.done)
            self._ingest_rows.labels("refused").inc(record.failed)
            self._ingest_seconds.observe(record.seconds)

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody scrapes."""
        self._gauges.add(f"{PREFIX}_{name}", meaning, read)

    def gauges(self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Several of them under one name, told apart by a label; `read` answers with a bounded number of values."""
        self._gauges.add(f"{PREFIX}_{name}", meaning, read, label=label)

    def counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """The same for one that only grows; its name gets `_total`."""
        self._gauges.add(f"{PREFIX}_{name}", meaning, read, grows=True)

    def counters(self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Several of them under one name, told apart by a label; `read` answers with a bounded number of values."""
        self._gauges.add(f"{PREFIX}_{name}", meaning, read, grows=True, label=label)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All of it in the format that the scraper accepts, and that format's Content-Type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, registry=self._registry, buckets=SECONDS)


class _Gauges(Collector):
    """What is read when somebody scrapes."""

    def __init__(self) -> None:
        self._reads: dict[str, tuple[str, Read, bool, str | None]] = {}

    def add(self, name: str, meaning: str, read: Read, *, grows: bool = False, label: str | None = None) -> None:
        assert name not in self._reads, f"there are two numbers named {name}"
        self._reads[name] = (meaning, read, grows, label)

    def collect(self) -> Iterator[Metric]:
        for name, (meaning, read, grows, label) in self._reads.items():
            try:
                value = read()
            except Exception as error:  # noqa: BLE001  # one unknown number must not hide the others
                log.debug("number unknown", name=name, error=repr(error))
                continue
            family = (CounterMetricFamily if grows else GaugeMetricFamily)(
                name, meaning, labels=[label] if label else []
            )
            for labels, number in _labelled(value):
                family.add_metric(labels, number)
            yield family


def _labelled(value: float | Mapping[str, float]) -> list[tuple[list[str], float]]:
    if isinstance(value, Mapping):
        return [([name], float(number)) for name, number in value.items()]
    return [([], float(value))]


class _Loops(Collector):
    """The ledger's totals."""

    def __init__(self, read: Callable[[], Sequence[ledger.Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for number in self._read():
            family = CounterMetricFamily if number.kind == "counter" else GaugeMetricFamily
            held = families.setdefault(number.name, family(number.name, number.meaning, labels=("loop",)))
            held.add_metric((number.loop,), number.value)
        return families.values()
