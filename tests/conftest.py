"""One thread a process: the tests' tensors are tiny, and pytest runs as many processes as there are cores."""

import os
from collections import Counter

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start

import pytest
import torch

torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests/robustness counted; its tests may have run in other processes."""
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if getattr(report, "when", "") == "teardown"
    ]
    counts = {
        report.nodeid.partition("::test_")[2]: Counter(value)
        for report in reports
        for name, value in report.user_properties
        if name == "campaign"
    }
    if counts:
        from tests.robustness.campaign import SEED, table

        terminalreporter.section(f"robustness, QLIP_CAMPAIGN_SEED={SEED}")
        for line in table(counts):
            terminalreporter.write_line(line)
