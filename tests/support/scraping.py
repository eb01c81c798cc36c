"""A reader of Ray's Prometheus endpoints, as Prometheus itself reads them: again and again, while a run goes on."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]

OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "le"}
"""Labels that Ray adds to each series, and the bounds of histograms."""


@dataclass
class Scraped:
    """What was seen of the metrics of posebatch."""

    kinds: dict[str, str] = field(default_factory=dict)
    """By name: counter, gauge, histogram."""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)
    """The last value of each series, by its name and all its labels."""

    def read(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            if family.name.startswith("ray_posebatch_"):
                suffix = "_total" if family.type == "counter" else ""  # the parser takes it off
                self.kinds[family.name + suffix] = family.type
                self.samples |= {(one.name, frozenset(one.labels.items())): one.value for one in family.samples}

    def driver_of(self, run_id: str) -> str:
        """The id by which Ray tells the process of a run's driver from others."""
        (labels,) = (
            dict(labels)
            for name, labels in self.samples
            if name == "ray_posebatch_run_info" and ("run_id", run_id) in labels
        )
        return labels["WorkerId"]

    def of_run(self, run_id: str) -> Mapping[tuple[str, Labels], float]:
        """The series of one run, without the labels of Ray."""
        driver = ("WorkerId", self.driver_of(run_id))
        return {
            (name, frozenset(label for label in labels if not _is_of_ray(label[0]))): value
            for (name, labels), value in self.samples.items()
            if driver in labels
        }


def _is_of_ray(label: str) -> bool:
    return label in OF_RAY or label.startswith("otel_")


@contextmanager
def scraping(session_folder: Path, seconds: float = 1.0) -> Iterator[Scraped]:
    """Scrape every second the addresses that Ray names for Prometheus, and once more on leaving.

    Like Prometheus, it goes on without an answer. The last scrape must be answered.
    """
    scraped, ended = Scraped(), threading.Event()

    def scrape() -> None:
        for address in targets(session_folder):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
                scraped.read(answer.read().decode())

    def scrape_until_ended() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(OSError):
                scrape()

    thread = threading.Thread(target=scrape_until_ended, name="scraper", daemon=True)
    thread.start()
    try:
        yield scraped
    finally:
        ended.set()
        thread.join()
        scrape()


def targets(session_folder: Path) -> list[str]:
    """The addresses in the file that Ray writes for the service discovery of Prometheus."""
    (file,) = session_folder.glob("prom_metrics_service_discovery.json")
    return [target for group in json.loads(file.read_text()) for target in group["targets"]]
