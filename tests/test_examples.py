"""The example handlers: that they do what they say, and that they are good examples."""

import hashlib
import math
import struct
import zlib
from pathlib import Path

import pytest

from handlers.checksum import derive_key
from handlers.flaky import Unlucky, flaky
from handlers.mandelbrot import mandelbrot
from handlers.pi import digits_of_pi
from handlers.primes import count_primes, factorize
from handlers.words import Count, Made, word_statistics
from supervisor import PermanentError
from supervisor.handler_api.registry import registry
from supervisor.handler_api.result import encode_result
from tests.handler_world import World

FOLDER = Path(__file__).parents[1] / "handlers"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_mandelbrot_draws_a_png_and_tells_its_rows(world):
    picture = mandelbrot(world.context(), width=32, height=20, iterations=50)

    assert encode_result(picture) == picture
    assert pixels(picture, 32, 20)[10][22] == 0  # inside the set
    assert pixels(picture, 32, 20)[0][0] > 200  # far outside
    assert world.progress[-1] == {"done": 20, "total": 20}


def pixels(picture, width, height):
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (width, height)
    start = picture.index(b"IDAT")
    (length,) = struct.unpack(">I", picture[start - 4 : start])
    rows = zlib.decompress(picture[start + 4 : start + 4 + length])
    return [rows[row * (width + 1) + 1 : (row + 1) * (width + 1)] for row in range(height)]


def test_words_are_counted(world):
    statistics = word_statistics(world.context(), "The cat and the dog\nand THE rest", top=2)

    assert (statistics.words, statistics.different) == (8, 5)
    assert statistics.top == [Count("the", 3), Count("and", 2)]
    assert encode_result(statistics).startswith(b'{"words":8')


def test_a_text_that_is_made_up_is_the_same_for_the_same_seed(world):
    one, same, other = (word_statistics(world.context(), made=Made(seed, 5000)) for seed in (1, 1, 2))

    assert one == same != other
    assert one.words == 5000


@pytest.mark.parametrize(("below", "primes"), [(0, 0), (2, 0), (3, 1), (100, 25), (30_000, 3245)])
def test_primes_are_counted(world, below, primes):
    assert count_primes(world.context(), below) == {"below": below, "primes": primes}


@pytest.mark.parametrize("number", [1, 2, 12, 97, 1001, 2**20, 999_983 * 7])
def test_the_factors_of_a_number_are_prime_and_make_it(number):
    factors = factorize(number)

    assert math.prod(factors) == number
    assert all(factorize(factor) == [factor] for factor in factors)


def test_a_number_without_factors_is_not_tried_again():
    with pytest.raises(PermanentError):
        factorize(0)


def test_flaky_fails_until_its_attempt_comes(world):
    with pytest.raises(Unlucky):
        flaky(world.context(attempt=1), succeed_on=2)

    assert flaky(world.context(attempt=2), succeed_on=2) == {"attempt": 2}
    assert len(world.logged) == 1


def test_a_key_is_derived():
    assert derive_key("secret", rounds=10)["key"] == hashlib.pbkdf2_hmac("sha256", b"secret", b"mobius", 10).hex()


def test_the_digits_of_pi_are_the_digits_of_pi(world):
    digits = digits_of_pi(world.context(), 30)

    assert digits == "314159265358979323846264338327"
    assert world.events[-1] == ("pi.written", {"bytes": 30})


def test_every_module_of_the_folder_is_tried_here_and_every_handler_says_what_it_does():
    modules = {f"handlers.{file.stem}" for file in FOLDER.glob("[!_]*.py")}
    known = [handler for handler in registry.handlers() if handler.module in modules]

    assert {handler.module for handler in known} == modules
    assert all(handler.summary.endswith(".") and handler.limits.timeout for handler in known)
