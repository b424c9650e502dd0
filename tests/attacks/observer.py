"""A process beside an attack: asks the gateway as somebody else would, and looks at the memory of our processes.

`python -m tests.attacks.observer <gateway's address> <process ids>`, with the access token in the first line of its
input. At the input's end it prints what it saw as one line of JSON, whose keys are those of `tests.attacks.frame.Seen`.
"""

import http.client
import json
import math
import sys
import threading
import time
from urllib.parse import urlsplit

import psutil

PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 120.0


def main() -> None:
    """Watch until the input ends."""
    address, *pids = sys.argv[1:]
    token = sys.stdin.readline().strip()
    over = threading.Event()
    threading.Thread(target=_set_at_end, args=(over,), daemon=True).start()
    processes = [psutil.Process(int(pid)) for pid in pids]
    milliseconds: list[float] = []
    resident = [_rss(processes)]
    failed = 0
    print("watching", flush=True)
    while not over.is_set() or not milliseconds:
        began = time.monotonic()
        failed += not _is_answered(address, token)
        milliseconds.append((time.monotonic() - began) * 1000)
        resident.append(_rss(processes))
        over.wait(PAUSE_SECONDS)
    ordered = sorted(milliseconds)
    report = {
        "asked": len(ordered),
        "failed": failed,
        "middle_ms": ordered[len(ordered) // 2],
        "late_ms": ordered[min(len(ordered) - 1, math.ceil(len(ordered) * 0.99) - 1)],
        "worst_ms": ordered[-1],
        "rss_before": resident[0],
        "rss_peak": max(resident),
        "rss_after": resident[-1],
    }
    print(json.dumps(report), flush=True)


def _set_at_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _is_answered(address: str, token: str) -> bool:
    # A connection each time, as somebody new would come: one that is refused counts too.
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/sessions?page_size=1", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _rss(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it was replaced
            continue
    return total


if __name__ == "__main__":
    main()
