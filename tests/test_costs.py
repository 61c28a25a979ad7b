"""Bills, estimates and budgets: the arithmetic, and that of jobs on this machine."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import call

import lithops_mini as lm
from lithops_mini import costs
from lithops_mini.compute import aws_charges
from lithops_mini.costs import Stage
from lithops_mini.errors import BudgetExceeded, ConfigError, InputError, OutOfMemory
from lithops_mini.job import memory
from lithops_mini.job.estimate import Round, Sample, estimate
from lithops_mini.job.plan import PlannedCall
from lithops_mini.records import NO_REQUESTS, Invocation, Partition, Platform, Requests, Usage

LAMBDA = Platform("aws_lambda", "x86_64", 1769, 512, "us-east-1", "aws_s3")
PRICES = costs.read_prices()
GB_SECOND = 0.0000166667

invocations = st.builds(
    Invocation,
    milliseconds=st.integers(0, 900_000),
    memory=st.integers(128, 10_240),
    peak=st.integers(0, 10_240),
    start=st.integers(0, 10_000),
    requests=st.builds(Requests, *[st.integers(0, 1000)] * 3),
    told=st.booleans(),
)
usages = st.lists(invocations, max_size=8).map(lambda found: costs.sum_up(map(Usage.of, found)))
requests = st.builds(Requests, *[st.integers(0, 10_000)] * 3)


def dollars(usage: Usage, sent: Requests = NO_REQUESTS, platform: Platform = LAMBDA) -> float:
    return costs.cost("", usage, sent, platform, PRICES).dollars


# ---------------------------------------------------------------- the arithmetic


def test_a_bill_in_all_its_figures():
    usage = Usage({1024: 2000, 2048: 500}, 3, requests=Requests(puts=2))
    calls = [call(n, storage_puts=n, storage_gets=10) for n in range(1, 4)]
    found = costs.bill([Stage("map", calls, usage)], LAMBDA, PRICES, client_requests=Requests(5, 7, 1))
    (line,) = found.stages
    assert (line.invocations, line.memory, line.seconds, line.gb_seconds) == (3, 2048, 2.5, 3.0)
    assert line.requests == (2 + 6, 30, 0)
    assert line.time_dollars == pytest.approx(3 * GB_SECOND)
    assert line.invocation_dollars == pytest.approx(3 * 0.20 / 1e6)
    assert line.storage_dollars == pytest.approx(8 * 0.005 / 1e3 + 30 * 0.0004 / 1e3)
    assert found.client.dollars == pytest.approx(5 * 0.005 / 1e3 + 7 * 0.0004 / 1e3)
    assert found.dollars == pytest.approx(line.dollars + found.client.dollars)
    assert found.title == "Cost on AWS Lambda and Amazon S3 Standard (prices of 2026-11-21, us-east-1)"
    assert found.rows() == [
        ["", "invocations", "memory", "GB-seconds", "put/post/list", "get/head", "dollars"],
        ["map", "3", "2,048", "3.00", "8", "30", "$0.000103"],
        ["client", "", "", "", "5", "7", "$0.0000278"],
        ["total", "3", "2,048", "3.00", "13", "37", "$0.000130"],
    ]
    assert json.loads(json.dumps(found.as_dict()))["total"]["dollars"] == found.dollars


@given(usages, usages, requests, requests)
def test_the_price_of_all_is_the_sum_of_the_prices(one: Usage, other: Usage, sent: Requests, more: Requests):
    together = dollars(one.plus(other), sent.plus(more))
    assert together == pytest.approx(dollars(one, sent) + dollars(other, more), rel=1e-9, abs=1e-15)
    stages = [Stage("a", [], one), Stage("b", [], other)]
    found = costs.bill(stages, LAMBDA, PRICES, client_requests=sent)
    whole = dollars(one, one.requests) + dollars(other, other.requests) + dollars(Usage(), sent)
    assert found.dollars == pytest.approx(whole, rel=1e-9, abs=1e-15)


@given(usages, invocations, requests, st.sampled_from(["x86_64", "arm64"]), st.integers(512, 10_240))
def test_nothing_more_costs_less(used: Usage, more: Invocation, sent: Requests, architecture: str, disk: int):
    platform = replace(LAMBDA, architecture=architecture, disk=disk)
    before = dollars(used, sent, platform)
    assert dollars(used.plus(Usage.of(more)), sent, platform) >= before >= 0
    assert dollars(used, sent.plus(Requests(1, 1, 1)), platform) > before
    assert dollars(used, sent, replace(platform, disk=disk + 1)) >= before
    larger = more._replace(memory=more.memory + 1)
    assert dollars(Usage.of(larger), platform=platform) >= dollars(Usage.of(more), platform=platform)


@given(usages)
def test_a_usage_can_be_read_again(used: Usage):
    assert Usage.from_json(json.loads(json.dumps(used.as_json()))) == used


def test_many_stages_are_added_up_and_the_first_named_so():
    found = costs.bill([Stage(f"s{n}", [], Usage({1024: 1000}, 1)) for n in range(9)], LAMBDA, PRICES)
    rows = found.rows()
    assert [row[0] for row in rows] == ["", "6 earlier", "s6", "s7", "s8", "total"]
    assert [row[1] for row in rows[1:]] == ["6", "1", "1", "1", "9"]


def test_prices_are_dated_and_can_be_replaced():
    assert PRICES.of("aws_lambda", "arm64_gb_second") == 0.0000133334
    own = costs.read_prices({"aws_lambda.request": 1.0})
    assert costs.cost("", Usage({}, 2), NO_REQUESTS, LAMBDA, own).dollars == 2.0
    assert "and your own" in costs.bill([], LAMBDA, own).title
    with pytest.raises(ConfigError, match=r"there is no price 'lambda\.request'; there are aws_lambda\."):
        lm.function_executor("inline", prices={"lambda.request": 1.0})
    with pytest.raises(ConfigError, match=r"aws_s3\.put is -1"):
        costs.read_prices({"aws_s3.put": -1})


def test_what_lambda_writes_is_what_it_charges():
    from base64 import b64encode

    line = "\tBilled Duration: 43 ms\tMemory Size: 512 MB\tMax Memory Used: 90 MB\t"
    printed = f"REPORT RequestId: mine{line}\n" + "x" * 5000
    cold = f"{printed}\nREPORT RequestId: 1\tDuration: 2.04 ms{line}Init Duration: 40.6 ms\t\nXRAY TraceId: 1\n"
    assert aws_charges.reported(b64encode(cold.encode()[-4096:]).decode()) == Invocation(43, 512, 90, 41)
    warm = f"REPORT RequestId: 1\tDuration: 42.04 ms{line}\n"
    assert aws_charges.reported(b64encode(warm.encode()).decode()) == Invocation(43, 512, 90)
    assert aws_charges.reported("") is None


def test_a_bill_says_what_was_not_told():
    used = Usage({1769: 900}, 3, untold=1)
    lost = call(1, attempt=2, status="died")
    notes = costs.bill([Stage("map", [lost], used)], replace(LAMBDA, region="eu-central-1"), PRICES).notes
    assert notes == (
        "1 of 3 invocations did not tell their time: it is as the client saw it.",
        "Requests to storage by workers that were lost are not known.",
        "Requests to storage are not known, and not in it.",
        "The jobs ran in eu-central-1: its own prices can be set as prices in the configuration.",
        "Not in it: data kept and moved, logs, taxes; free tiers are not taken off.",
    )


# ---------------------------------------------------------------- memory


def test_what_less_memory_would_have_saved():
    waiting = [call(n, cpu_user=0.0, cpu_system=0.0, peak_memory=100 << 20) for n in range(10)]
    (advice,) = costs.bill([Stage("map", waiting, Usage({1769: 100_000}, 10))], LAMBDA, PRICES).advice
    assert (advice.peak, advice.enough) == (164, 256)  # with the worker's own, and a quarter more
    assert advice.slower == 1.0
    assert advice.saved == pytest.approx(100 * (1769 - 256) / 1024 * GB_SECOND)
    assert str(advice).startswith(
        "map held at most 164 of 1,769 MiB: 256 would have been enough, and have saved $0.00246"
    )

    computing = [replace(each, cpu_user=10.0) for each in waiting]
    (advice,) = costs.bill([Stage("map", computing, Usage({1769: 100_000}, 10))], LAMBDA, PRICES).advice
    assert advice.slower == pytest.approx(1769 / 256, rel=0.01)
    assert advice.share < 0.001  # the same processor for longer
    assert "saved nothing. Its calls would have taken 6.9 times as long" in str(advice)

    told = Usage({512: 1000}, 1, peak=500)
    (advice,) = costs.bill([Stage("map", waiting, told)], LAMBDA, PRICES).advice
    assert str(advice) == "map held at most 500 of 512 MiB: no less would do."
    told = Usage({512: 1000}, 1, peak=50)
    assert Stage("map", waiting, told).peak == 100  # nothing is less than a part of it


def test_auto_goes_by_the_largest_input():
    def reading(*pieces: Partition) -> PlannedCall:
        return PlannedCall((), {"obj": list(pieces) if len(pieces) > 1 else pieces[0]})

    def piece(size: int, **more: object) -> Partition:
        return replace(Partition("object", "b", "k", size, 0, 1, 0, size, None), **more)

    assert memory.fitting([PlannedCall((1,), {})]) == 512
    assert memory.fitting([reading(piece(64 << 20))]) == 512
    assert memory.fitting([reading(piece(65 << 20))]) == 1024
    assert memory.fitting([reading(piece(10 << 20), piece(100 << 20))]) == 1024  # read one after the other
    assert memory.fitting([reading(piece(100 << 20, compression="gzip"))]) == 2048
    assert memory.fitting([reading(piece(200 << 20, start=150 << 20, stop=None))]) == 512
    assert memory.fitting([reading(piece(1 << 40))]) == 8192
    assert memory.fitting([PlannedCall((), {})], 500 << 20) == 4096


def test_auto_gives_more_when_that_was_not_enough(tmp_path):
    def hold(size):
        return len(bytearray(os.urandom(1 << 20)) * size)

    with lm.localhost_executor(max_workers=1, progress=False, storage_path=tmp_path, runtime_memory="auto") as ex:
        future = ex.call_async(hold, 700)
        assert ex.get_result(future) == 700 << 20
        assert future.stats.attempt == 2
        assert [row[2] for row in ex.bill().rows()[1:]] == ["1,024", "1,024"]
        assert set(ex._jobs[0].usage.milliseconds) == {512, 1024}  # the first attempt is paid for too
        with pytest.raises(OutOfMemory):
            ex.get_result(ex.call_async(hold, 300, runtime_memory=200))


# ---------------------------------------------------------------- estimates


def estimated(sample: Sample, calls: int, **more: object):
    given = {"name": "f", "lanes": 10, "memory": 1024, "chunksize": None, "platform": LAMBDA, "prices": PRICES}
    return estimate(sample, calls, **(given | more))


def test_an_estimate_from_durations():
    found = estimated(Sample.said(2.0), 100)
    assert found.expected.stages[0].gb_seconds == pytest.approx(100 * 2.001)
    assert found.seconds == pytest.approx(20.01)
    assert found.low.dollars < found.dollars < found.high.dollars
    assert str(found).startswith("100 calls would cost $0.00336, between $0.00169 and $0.00669 by a sample of 1 call")
    short = estimated(Sample.said([0.001] * 5), 100_000)  # many travel together
    assert short.expected.total.invocations == 5000
    assert estimated(Sample.said([0.001] * 5), 100_000, chunksize=1).expected.total.invocations == 100_000
    assert estimated(Sample.said([1.0, 3.0]), 2).low.dollars == estimated(Sample.said([1.0, 3.0]), 2).high.dollars
    for wrong in ([], True, [-1.0], float("nan")):
        with pytest.raises(InputError, match="durations is"):
            Sample.said(wrong)


@pytest.mark.parametrize(("shape", "together"), [("uniform", 1), ("normal", 1), ("gamma", 1), ("uniform", 4)])
def test_the_range_has_the_truth_in_nine_of_ten(shape: str, together: int):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    held = sum(range_holds(random.Random(seed + trial), shape, together) for trial in range(600))
    assert held >= 540


def range_holds(dice: random.Random, shape: str, together: int) -> bool:
    """Whether the range of an estimate from five of two hundred calls has what they all cost, with some cold starts."""

    def took() -> float:
        draw = {"uniform": dice.uniform(0.2, 0.6), "normal": dice.gauss(0.5, 0.08), "gamma": dice.gammavariate(4, 0.1)}
        return draw[shape]

    def invoked(seconds: float, cold: bool) -> Invocation:
        start = dice.randint(200, 500) if cold else 0
        return Invocation(math.ceil(1000 * (seconds + dice.gauss(0.02, 0.004))) + start, 1024, start=start)

    population = [max(0.0, took()) for _ in range(200)]
    few = population[20::40]
    rounds = []
    for some in (few[:3], few[3:]):
        used = [invoked(seconds, cold=not rounds) for seconds in some]
        times = [call(n, started=0.0, ended=seconds) for n, seconds in enumerate(some)]
        rounds.append(Round(Stage("f", times, costs.sum_up(map(Usage.of, used))), used, 1.0))
    found = estimated(Sample.ran(rounds), len(population), chunksize=together)
    messages = [sum(population[n : n + together]) for n in range(0, len(population), together)]
    cold = dice.randint(0, 8)
    truth = dollars(costs.sum_up(Usage.of(invoked(each, n < cold)) for n, each in enumerate(messages)))
    return found.low.dollars <= truth <= found.high.dollars


def test_an_estimate_knows_how_often_the_client_looks():
    looking = Sample((0.5,) * 5, way=0.05, look=0.02, lists=2.0, stored=1.0, fetches=1.0, counted=True)
    found = estimated(looking, 400, lanes=4, chunksize=1)
    # Of each message the fifth look finds the reply: the others come before it is stored.
    assert found.expected.client.requests == Requests(2 + int(found.seconds / 2) + 100 * 5 * 2, 400)
    assert found.seconds == pytest.approx(100 * 5 * 0.12)
    assert found.expected.stages[0].requests.puts == 400
    many = estimated(looking, 40_000, lanes=4, chunksize=1).expected.client.requests
    assert many.puts == pytest.approx(100 * found.expected.client.requests.puts, rel=0.01)
    slow = estimated(replace(looking, seconds=(100.0,) * 5), 4, lanes=4, chunksize=1)  # looks become rare
    assert 100 < slow.expected.client.requests.puts < 130


def test_an_estimate_of_nothing_and_of_what_map_does_not_know(tmp_path):
    with lm.localhost_executor(progress=False, storage_path=tmp_path) as ex:
        nothing = ex.estimate_cost(work, [])
        assert (nothing.dollars, nothing.sample) == (0.0, 0)
        assert str(ex.estimate_cost(work, [1], durations=1)).startswith("1 call would cost $")
        assert str(nothing).startswith("0 calls would cost nothing.\n")
        with pytest.raises(InputError, match="estimate_cost has no option 'chunk'; there are chunksize, extra_args"):
            ex.estimate_cost(work, [1], chunk=1)
        with pytest.raises(InputError, match=r'runtime_memory is .Auto.: .* at least 64, or "auto"'):
            ex.map(work, [1], runtime_memory="Auto")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(1, 10_000))
def test_the_range_has_what_is_expected_and_more_calls_cost_more(seconds: list[float], calls: int):
    sample = Sample(tuple(seconds), start=0.5, requests=Requests(3, 4, 5), counted=True)
    found, more = estimated(sample, calls, chunksize=1), estimated(sample, calls + 1, chunksize=1)
    assert found.low.dollars <= found.dollars * (1 + 1e-9)
    assert found.dollars <= found.high.dollars * (1 + 1e-9)
    assert more.dollars >= found.dollars


# ---------------------------------------------------------------- jobs on this machine


def work(seconds):
    threading.Event().wait(seconds)
    return seconds


def test_what_a_job_would_have_cost_here_and_read_by_another_process(tmp_path):
    where = {"storage_path": str(tmp_path), "max_workers": 2, "progress": False}
    with lm.localhost_executor(**where, runtime_memory=1024) as ex:
        found = ex.estimate_cost(work, [0.2] * 12, sample=4)
        before = ex.bill().dollars
        ex.get_result(ex.map(work, [0.2] * 12, chunksize=1))
        bill = ex.bill()
        job = ex._jobs[-1].id
        summary = ex.job_summary()
    assert bill.dollars - before == pytest.approx(12 * 0.2 * GB_SECOND, rel=0.5)
    assert found.dollars == pytest.approx(bill.dollars - before, rel=0.5)  # of a busy machine
    assert "It would have cost on AWS Lambda (prices of 2026-11-21, us-east-1):" in summary
    assert "Nothing was charged for the calls: calls run on this machine." in summary
    assert f"{summary}\n".endswith(f"\n\n{bill}\n")
    (tmp_path / "c.yaml").write_text(json.dumps({"profiles": {"p": {"localhost": {"storage_path": str(tmp_path)}}}}))
    command = [sys.executable, "-m", "lithops_mini", "jobs", "cost", job, "-c", str(tmp_path / "c.yaml")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in str(bill).splitlines() if "M002" in line)
    assert re.sub(" +", " ", line) in re.sub(" +", " ", text)
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["total"]["dollars"] == bill.stages[-1].dollars
    assert told["prices"] == "2026-11-21"


def started(path, **more):
    """An executor whose workers are there: how long that takes on a busy machine, nobody knows."""
    ex = lm.localhost_executor(max_workers=3, progress=False, storage_path=path, runtime_memory=1024, **more)
    ex.get_result(ex.map(work, [0.2] * 3, chunksize=1, budget=1.0))
    return ex


def outcomes(futures):
    """How many have a value, and the errors of the others."""
    errors = [future.exception(60) for future in futures]
    return errors.count(None), [error for error in errors if error is not None]


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 2.4), (2, 5.0)])
def test_a_budget_stops_a_job_before_it_is_passed(tmp_path, timeout, seconds):
    limit = seconds * GB_SECOND
    with started(tmp_path) as ex:
        before = ex.bill().dollars
        futures = ex.map(work, [0.2] * 40, budget=limit, timeout=timeout)
        ran, errors = outcomes(futures)
        assert ran + len(errors) == 40
        assert 1 <= ran <= seconds / 0.2
        assert {type(error) for error in errors} == {BudgetExceeded}
        assert errors[0].limit == limit
        assert 0 < errors[0].spent <= limit
        assert str(errors[0]).startswith(f"the budget of {costs.dollars(limit)} is used up: ")
        assert [future.result() for future in futures if future.exception() is None] == [0.2] * ran
        assert ex.bill().dollars - before <= limit
        assert ex.get_result(ex.map(work, [0.01] * 5)) == [0.01] * 5  # the next job has none


def test_calls_that_would_pass_a_budget_are_stopped(tmp_path):
    limit = 3.0 * GB_SECOND
    with started(tmp_path) as ex:
        before = ex.bill().dollars
        ran, errors = outcomes(ex.map(work, [0.05, 0.05, 600], budget=limit))
        assert ran == 2
        assert ", and 1 more was stopped before passing it" in str(errors[0])
        ex.shutdown()
        assert ex.bill().dollars - before <= limit


@pytest.mark.parametrize(("timeout", "way"), [(None, ""), (2, " with a timeout of 2 s")])
def test_a_budget_that_is_too_small_for_one_message_says_what_it_needs(tmp_path, timeout, way):
    with started(tmp_path) as ex:
        future = ex.map(work, [0.2] * 3, budget=1e-7, timeout=timeout)[0]
        with pytest.raises(BudgetExceeded) as caught:
            future.result()
        said = re.fullmatch(
            r"the budget of \$0\.000000100 is less than one message may cost, \$([\d.]+)"
            rf"{way}: give a larger budget( or a shorter timeout)? \(prices of 2026-11-21\)",
            str(caught.value),
        )
        assert said
        assert bool(said[2]) == (timeout is not None)
        assert float(said[1]) == pytest.approx(2e-7 + (0 if timeout is None else 3 * GB_SECOND), rel=0.01)


def test_a_budget_is_for_both_stages(tmp_path):
    with started(tmp_path, budget=3 * GB_SECOND) as ex:
        reduced = ex.map_reduce(work, [0.1] * 100, sum)
        assert outcomes(reduced)[0] == 0
        assert isinstance(reduced[0].exception(), BudgetExceeded)
        assert outcomes(reduced.map_futures)[0] >= 1
        assert ex.get_result(ex.map_reduce(work, [0.01] * 2, sum, spawn_reducer=50, budget=1.0)) == 0.02
        with pytest.raises(InputError, match="budget is 0: give a number of dollars over 0"):
            ex.map(work, [1], budget=0)


def test_the_bill_of_a_docker_or_a_knative_says_why_nothing_was_charged():
    for backend in ("docker", "knative", "ibm_cf", "openwhisk", "inline"):
        notes = costs.bill([Stage("m", [call(1)], Usage({0: 5}, 1))], Platform(), PRICES, backend=backend).notes
        assert notes[0].startswith(f"Nothing was charged for the calls: {PRICES.unpriced[backend]}.")


def test_the_table_of_prices_is_shipped():
    assert "prices.yaml" in (Path(__file__).parent.parent / "setup.cfg").read_text()
    assert (Path(costs.__file__).parent / "prices.yaml").exists()
