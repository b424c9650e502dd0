import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from servicekit.parts import METRICS_PORT, PARTS
from servicekit.telemetry.measures import Counter, Histogram, Measure
from servicekit.telemetry.metrics import Pools
from tests.support.contract import ROOT

FOLDER = ROOT / "deploy" / "observability"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "concerto.json"
# What Prometheus itself adds, and what its client tells of a process on Linux.
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
NAME = re.compile(r"\b(?:concerto|process|python)_[a-z0-9_]+|\bup\b")


def declared() -> list[Measure]:
    """Return every measure that a module of ours declares."""
    found: list[Measure] = []
    for folder in ("servicekit", "services", "gateway"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            names = path.relative_to(ROOT).with_suffix("").parts
            if "tests" not in names and "measures." in path.read_text():
                values = vars(importlib.import_module(".".join(names))).values()
                found += [value for value in values if isinstance(value, Measure)]
    return found


def series() -> dict[str, set[str]]:
    """Return the names of all series that our metrics have, with the names of their labels."""
    found: dict[str, set[str]] = {}
    for measure in declared():
        labels = set(measure.labels)
        if isinstance(measure, Histogram):
            found |= {f"{measure.name}_{suffix}": labels for suffix in ("count", "sum")}
            found[f"{measure.name}_bucket"] = labels | {"le"}
        else:
            found[f"{measure.name}_total" if isinstance(measure, Counter) else measure.name] = labels
    for metric in Pools().collect():
        found[metric.name] = {name for sample in metric.samples for name in sample.labels}
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in load("alerts.yaml")["groups"] for rule in group["rules"]]


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def expressions() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


SERIES = series()


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_exists(where: str, expression: str) -> None:
    named = set(NAME.findall(expression))
    assert named
    assert named - SERIES.keys() - OTHERS == set()
    known = set().union(*(SERIES.get(name, set()) for name in named), {"part", "instance", "job"})
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"\{([^}]*)\}", expression)
    labels = {label.strip() for group in grouped for label in group.split(",")}
    labels |= {label for match in matched for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", match)}
    assert labels <= known


def test_every_metric_of_ours_is_shown_on_the_dashboard() -> None:
    shown = {name for panel in panels() for target in panel["targets"] for name in NAME.findall(target["expr"])}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


def test_every_metric_of_ours_is_explained() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert [name for name in sorted(families) if name not in page] == []


def test_the_dashboard_has_panels_that_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "concerto"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_prometheus_finds_every_replica_of_every_part() -> None:
    config = load("prometheus.yaml")
    (job,) = config["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert (sorted(names["names"]), names["type"], names["port"]) == (
        sorted(part.name for part in PARTS),
        "A",
        METRICS_PORT,
    )
    assert job["metrics_path"] == "/metrics"
    for name in config["rule_files"]:
        assert (FOLDER / name).is_file()


def test_the_collector_takes_what_our_processes_send() -> None:
    config = load("collector.yaml")
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
    assert set(config["service"]["extensions"]) <= config["extensions"].keys()


def test_alerts_say_what_to_do_and_how_urgent_it_is() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert re.fullmatch(r"\d+m", rule["for"])


def test_grafana_is_given_the_datasource_and_the_dashboards_folder() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert (source["type"], source["uid"], source["isDefault"]) == ("prometheus", "prometheus", True)
    (provider,) = load("grafana/provisioning/dashboards/concerto.yaml")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
