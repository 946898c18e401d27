"""The runner `local` keeps the contract, in one process and in several."""

from tests.runners.contract import RunnerContract, WorkerContract


class TestSerial(RunnerContract):
    runner_name = "serial"


class TestProcesses(WorkerContract):
    runner_name = "processes"
