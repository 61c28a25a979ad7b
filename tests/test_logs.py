"""Logging: whose handler, which level, and what happens to a bar on the same terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from terminal import child, frames

from lithops_mini import logs
from lithops_mini.errors import ConfigError

SETUP = "import logging\nfrom lithops_mini import logs\nlog = logging.getLogger('lithops_mini.job')\n"
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """The logger's level is as it was after each test."""
    logger = logging.getLogger(logs.LOGGER)
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("level", ["debug", "DEBUG", " Debug ", 10, "10"])
def test_a_level_by_name_or_number(level: str | int) -> None:
    logs.setup(level)
    assert logging.getLogger("lithops_mini").level == logging.DEBUG


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("lithops_mini")
    logs.setup("ERROR")
    logs.setup()
    assert logger.level == logging.ERROR
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "info")
    logs.setup()
    assert logger.level == logging.INFO
    logs.setup("warning")
    assert logger.level == logging.WARNING
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "")
    logs.setup()
    assert logger.level == logging.WARNING


@pytest.mark.parametrize("level", ["loud", "-1", -1, True, 1.5])
def test_a_wrong_level_names_the_right_ones(level: object) -> None:
    with pytest.raises(ConfigError, match=r"log_level is .*; the levels are DEBUG, INFO, WARNING, ERROR, CRITICAL"):
        logs.setup(level)  # type: ignore[arg-type]


def test_a_wrong_level_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITHOPS_MINI_LOG_LEVEL", "loud")
    with pytest.raises(ConfigError, match="LITHOPS_MINI_LOG_LEVEL is 'loud'"):
        logs.setup()


def test_without_handlers_of_the_users_there_is_one_of_ours() -> None:
    shown = child(SETUP + "for n in range(3): logs.setup('INFO')\nlog.info('once %d', 1)\nlog.debug('never')")
    assert re.fullmatch(LINE + "INFO lithops_mini.job: once 1\n", shown)


def test_without_a_level_there_are_warnings() -> None:
    shown = child(SETUP + "logs.setup()\nlog.info('quiet')\nlog.warning('loud')")
    assert re.fullmatch(LINE + "WARNING lithops_mini.job: loud\n", shown)


@pytest.mark.parametrize("first", [True, False])
def test_a_user_who_configures_logging_before_or_after_sees_each_record_once_and_his_way(first: bool) -> None:
    theirs, ours = "logging.basicConfig(format='mine %(message)s')\n", "logs.setup('INFO')\n"
    shown = child(SETUP + (theirs + ours if first else ours + theirs) + "log.info('once')")
    assert shown == "mine once\n"


def test_a_handler_on_our_logger_is_enough() -> None:
    code = (
        "handler = logging.StreamHandler()\nlogging.getLogger('lithops_mini').addHandler(handler)\nlogs.setup('INFO')\n"
    )
    assert child(SETUP + code + "log.info('once')") == "once\n"


def test_a_record_that_cannot_be_formatted_is_reported_and_the_program_goes_on() -> None:
    shown = child(SETUP + "logs.setup('INFO')\nlog.info('%d', 'no number')\nlog.info('on')")
    assert "--- Logging error ---" in shown
    assert shown.endswith("lithops_mini.job: on\n")


def test_records_stand_above_the_bar() -> None:
    code = """
import threading
logs.setup("INFO")
def talk():
    for n in range(20):
        log.info("record %d", n)
        time.sleep(0.04)
thread = threading.Thread(target=talk)
thread.start()
wait(1.0, enabled=True)
thread.join()
"""
    screen = child(SETUP + code, columns=100)
    shown = frames(screen)
    records = [frame for frame in shown if "record" in frame]
    assert [re.fullmatch(LINE + r"INFO lithops_mini\.job: record (\d+)", record)[1] for record in records] == [
        str(n) for n in range(20)
    ]
    assert shown[-1].startswith("map: 100%")


def test_importing_us_configures_nothing() -> None:
    code = "import logging, lithops_mini.logs\nlogger = logging.getLogger('lithops_mini')\n"
    assert child(code + "assert not logger.handlers and logger.level == 0") == ""
