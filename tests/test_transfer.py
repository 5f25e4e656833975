"""Transfers: values of a file, in [0, 1] and back."""

import numpy as np
import pytest

from utils.errors import InputError
from utils.transfer import DTYPES, KINDS, MU, Transfer, mu_law, survey


def test_curves_are_those_of_their_papers():
    relative = np.array([0, 1e-4, 0.01, 0.5, 1])
    np.testing.assert_allclose(mu_law(relative), np.log(1 + MU * relative) / np.log(1 + MU))
    pq = Transfer("pq", 0.0, 10_000.0, "float32")
    # ST 2084: 100 cd/m^2 is 0.508, 1000 is 0.752, the peak is 1
    np.testing.assert_allclose(pq.encode([0, 100, 1000, 10_000]), [0, 0.5081, 0.7518, 1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_values_come_back(kind):
    values = np.concatenate([[0, 12.5, 40_000], np.geomspace(1, 40_000, 1000)]).astype(np.float32)
    transfer = Transfer.over(kind, 0.0, 40_000.0, "float32")
    back = transfer.decode(transfer.encode(values))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=1e-2)
    assert back[0] == 0
    np.testing.assert_allclose(back.max(), 40_000, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_encoded_values_rise_from_0_to_1(kind):
    transfer = Transfer.over(kind, -3.0, 5.0, "float32")
    encoded = transfer.encode(np.linspace(-3, 5, 1001))
    assert encoded.dtype == np.float32
    assert (np.diff(encoded) > 0).all()
    np.testing.assert_allclose(encoded[[0, -1]], [0, 1], atol=1e-6)
    assert set(transfer.encode([-np.inf, np.nan, np.inf])) == {encoded[0]}


def test_16_bits_of_a_linear_transfer_hold_every_16_bit_integer():
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    transfer = Transfer.over("linear", -(2.0**15), 2.0**15 - 1, "int16")
    numbers = transfer.numbers(every)
    assert numbers.dtype == np.uint16
    np.testing.assert_array_equal(transfer.decode(numbers / (2**16 - 1)), every)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoded_values_stay_within_their_type(dtype):
    largest = np.finfo(dtype).max if "float" in dtype else np.iinfo(dtype).max
    transfer = Transfer.over("linear", 0.0, float(largest), dtype)
    back = transfer.decode(np.array([-1, 0, 1, 2]))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, np.array([0, 0, largest, largest], dtype))


def test_a_constant_has_a_transfer():
    for value in (0.0, -7.5, 3e20):
        transfer = Transfer.over("linear", value, value, "float32")
        assert transfer.decode(transfer.encode([value])) == np.float32(value)


def test_curves_of_intensities_begin_at_zero():
    assert Transfer.over("log", 2.0, 5.0, "float32").low == 0
    assert Transfer.over("log", -2.0, 5.0, "float32").low == -2
    assert Transfer.over("linear", 2.0, 5.0, "float32").low == 2


def test_a_record_gives_the_transfer_back():
    transfer = Transfer("pq", -0.5, 17.25, "float16")
    assert transfer.record() == {"kind": "pq", "low": -0.5, "high": 17.25, "dtype": "float16"}
    assert Transfer(**transfer.record()) == transfer


@pytest.mark.parametrize(
    "record",
    [
        ("cubic", 0.0, 1.0, "float32"),
        (["log"], 0.0, 1.0, "float32"),
        ("log", 0.0, 1.0, "object"),
        ("log", 0.0, 1.0, None),
        ("log", 1.0, 1.0, "float32"),
        ("log", 2.0, 1.0, "float32"),
        ("log", 0.0, float("inf"), "float32"),
        ("log", float("nan"), 1.0, "float32"),
        ("log", -1.7e308, 1.7e308, "float32"),
        ("log", "0", 1.0, "float32"),
        ("log", False, True, "float32"),
        ("log", 0, 10**400, "float32"),
    ],
)
def test_what_can_be_no_transfer_is_refused(record):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        Transfer(*record)


def test_a_survey_counts_what_is_not_finite():
    rows = np.array([[1, np.nan, 3], [np.inf, -np.inf, np.nan], [8, 2, 6]], np.float16)
    for parts in ([rows], rows, rows.T):
        found = survey(parts)
        assert (found.low, found.high) == (1, 8)
        assert found.log_mean == pytest.approx(288 ** (1 / 5))
        assert (found.n_nan, found.n_infinite, found.n_lost) == (2, 2, 4)
    assert survey([np.array([-3.0, 0, 2, 8])]).log_mean == pytest.approx(4)
    integers = survey([np.array([-5, 5], np.int16)])
    assert (integers.low, integers.high, integers.n_lost) == (-5, 5, 0)
    with pytest.raises(InputError, match="finite"):
        survey([np.full(3, np.nan)])


def test_a_survey_keeps_some_values_of_everywhere():
    few = np.arange(1000.0).reshape(10, 100)
    assert np.array_equal(survey(few).sample, np.arange(1000))
    many = survey(np.arange(3e6).reshape(30, 1000, 100)).sample
    assert 2**14 < many.size <= 2**18
    np.testing.assert_allclose([many.mean(), many.std()], [1.5e6, 3e6 / 12**0.5], rtol=0.01)
