from __future__ import annotations

import threading

from d365sync.cli.sync import traffic_line
from d365sync.dataverse.usage import Traffic, Usage
from d365sync.sync.entitlement import entitlement_of


def test_many_threads_are_counted_exactly() -> None:
    usage = Usage()

    def work() -> None:
        for _ in range(500):
            usage.add("GET 200", requests=1, bytes=3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert usage.since() == Traffic(requests=4000, bytes=12_000, answers={"GET 200": 4000})


def test_a_cycle_is_the_difference_of_two_moments() -> None:
    usage = Usage()
    usage.add("GET 200", requests=1, operations=1)
    before = usage.since()
    usage.add("POST 200", requests=1, operations=7, throttled_s=1.5, retries=1)
    cycle = usage.since(before)
    assert cycle.answers == {"POST 200": 1}
    assert cycle.counts == {
        "requests": 1, "operations": 7, "bytes": 0, "received_bytes": 0, "sent_bytes": 0, "retries": 1,
        "throttled_s": 2, "POST 200": 1,
    }  # fmt: skip


def test_a_cycle_is_told_in_one_line() -> None:
    traffic = Traffic(3, 3, 2000, 900, 10, 1, 4.2, {"GET 429": 1, "GET 200": 2})
    assert traffic_line(traffic) == (
        "3 requests (2 x GET 200, 1 x GET 429), 900 bytes received (2,000 unpacked), 10 sent; repeated 1; "
        "asked to wait 4 s"
    )


def test_the_days_use_counts_operations_and_warns_at_its_share() -> None:
    spent = entitlement_of([{"requests": 5, "operations": 400}, {"requests": 100}, {}], 1000, 50)
    assert (spent.used, spent.used_pct, spent.is_near) == (500, 50.0, True)
    assert not entitlement_of([{"operations": 499}], 1000, 50).is_near
