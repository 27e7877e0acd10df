"""Which of the stacks that a child writes counts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.process.stack_file import StackFile


@pytest.fixture
def stack() -> Iterator[StackFile]:
    stack = StackFile()
    yield stack
    stack.close()


def write(stack: StackFile, text: str) -> None:
    descriptor = stack.descriptor()
    os.write(descriptor, text.encode())
    os.close(descriptor)


def test_the_one_before_counts_until_the_next_is_there(stack: StackFile) -> None:
    write(stack, "first")

    stack.renew()

    assert stack.read() == "first"
    write(stack, "second")
    assert stack.read() == "second"


def test_what_is_written_after_the_one_that_was_asked_for_does_not_count(stack: StackFile) -> None:
    stack.renew()
    write(stack, "asked for")

    assert stack.keep()

    write(stack, "later")
    assert stack.read() == "asked for"


def test_an_earlier_one_is_not_taken_for_the_one_that_was_asked_for(stack: StackFile) -> None:
    write(stack, "earlier")
    stack.renew()

    assert not stack.keep()

    write(stack, "asked for")
    assert stack.keep()
    assert stack.read() == "asked for"


def test_a_new_job_has_none(stack: StackFile) -> None:
    stack.renew()
    write(stack, "of the job before")
    stack.keep()

    stack.start_job()

    assert stack.read() == ""
