from __future__ import annotations

from mae_cli.engines.openai.limit import FIRST, FLOOR, MOST, Limiter


class Clocked:
    """A server that works on `capacity` requests at once, each for one second; more wait in its queue."""

    def __init__(self, capacity: int, fixed: int | None = None) -> None:
        self.now = 0.0
        self.capacity = capacity
        self.limiter = Limiter(fixed, self.now)

    def windows(self, number: int) -> None:
        """Answer so many windows."""
        for _ in range(number):
            epoch, limit = self.limiter.epoch, self.limiter.limit
            rate = min(limit, self.capacity)
            for _ in range(limit):
                self.now += 1 / rate
                self.limiter.succeeded(epoch, 1, self.now)


def test_the_limit_doubles_while_throughput_grows_and_settles_near_what_the_server_takes() -> None:
    server = Clocked(capacity=64)

    server.windows(3)
    assert server.limiter.limit == FIRST * 8
    server.windows(2)

    # 128 in flight bring nothing over 64.
    assert server.limiter.limit == 64


def test_a_server_that_takes_everything_gets_the_most() -> None:
    server = Clocked(capacity=10**6)
    server.windows(12)
    assert server.limiter.limit == MOST


def test_a_burst_of_refusals_lowers_the_limit_once() -> None:
    limiter = Limiter(100, 0.0)
    epoch = limiter.epoch

    for _ in range(50):
        limiter.refused(epoch, 1.0)

    assert limiter.limit == 70


def test_refusals_without_end_stop_at_the_floor_and_a_given_number_is_never_passed() -> None:
    limiter = Limiter(100, 0.0)
    for _ in range(50):
        limiter.refused(limiter.epoch, 1.0)
    assert limiter.limit == FLOOR

    few = Limiter(2, 0.0)
    few.refused(few.epoch, 1.0)
    assert few.limit == 2


def test_the_limit_recovers_when_the_refusals_end() -> None:
    server = Clocked(capacity=10**6, fixed=100)
    for _ in range(20):
        server.limiter.refused(server.limiter.epoch, server.now)
    assert server.limiter.limit == FLOOR

    # 4 -> 5 -> 6 -> 7 -> 8 -> 10 -> 12 -> 15 -> 18 -> 22 -> 27 -> 33 -> 41 -> 51 -> 63 -> 78 -> 97 -> 100
    server.windows(17)

    assert server.limiter.limit == 100


def test_a_settled_limit_is_tried_again_when_the_server_takes_more() -> None:
    server = Clocked(capacity=16)
    server.windows(6)
    assert server.limiter.limit == 16

    server.capacity = 64
    server.windows(14)

    assert server.limiter.limit >= 64
