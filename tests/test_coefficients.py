"""The coding of networks of cosines: both decoders read what was written, and nothing else makes them fail."""

import random

import numpy as np
import pytest
from cosine_models import cosine_model
from hypothesis import given
from test_hostile import check_message, damage, damaged, fuzz
from test_quantised import check_refused, setting, spoilt

from models.miner import MINER
from models.packed import coefficients
from models.packed.coefficients import decode_chunk, encode_chunk
from packing.write import write_packed
from utils.errors import InputError, KernelError

PICTURE = ((77, 101), (32, 32), 3, 2, (8, 16, 32))
VOLUME = ((9, 19, 25), (8, 16, 8), 1, 1, (2, 8))


def integers_of(level, coding) -> tuple[np.ndarray, np.ndarray]:
    group = level.group[level.group >= 0].numpy().astype(np.int32)
    values = np.empty((len(group), coding.n_values), np.int32)
    for number, network in enumerate(level.networks):
        values[group == number] = coding.integers_of(network)
    return group, values


@pytest.mark.parametrize("form", [PICTURE, VOLUME], ids=["picture", "volume"])
def test_both_decoders_read_what_was_written(monkeypatch, form):
    model, codings = cosine_model(*form)
    group, values = integers_of(model.levels[0], codings[0])
    assert abs(values).max() > 100
    values[0, 1] = 2**27  # beyond all tables
    data = encode_chunk(group, values, codings[0])

    def refuse():
        raise KernelError("no compiler")

    for read in (coefficients.compiled, refuse):
        monkeypatch.setattr(coefficients, "compiled", read)
        found = decode_chunk(data, len(group), codings[0])
        assert (found[0] == group).all()
        assert (found[1] == values).all()
        for spoilt_data in (data[:-2], data[:3], data + b"\0\0", data[1:], b""):
            with pytest.raises(ValueError, match=r"^a "):
                decode_chunk(spoilt_data, len(group), codings[0])


def test_what_is_not_a_chunk_is_refused_or_decodes():
    model, codings = cosine_model(*PICTURE)
    n_blocks, draw = int((model.levels[0].group >= 0).sum()), random.Random(0)
    for _ in range(200):
        try:
            groups, values = decode_chunk(draw.randbytes(draw.randrange(3000)), n_blocks, codings[0])
        except ValueError:
            continue
        assert set(groups) <= {0, 1, 2}
        assert abs(values).max() <= 2**28


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("coefficients") / "x.miner"
    write_packed(path, *cosine_model(*PICTURE))
    return path


@fuzz
@given(how=damage)
def test_a_damaged_file_decodes_as_it_was_or_is_refused(tmp_path, file, how):
    (tmp_path / "x.miner").write_bytes(damaged(file.read_bytes(), how))
    try:
        decoded = MINER.load(tmp_path / "x.miner").decode()
    except InputError as error:
        check_message(error, "x.miner")
    else:
        assert decoded.equal(MINER.load(file).decode())


def networks(**changes):
    return lambda level: [network.update(changes) for network in level["networks"]]


def enlarged(length: int):
    """Blocks of so many pixels a side: there is one of them."""

    def spoil(level: dict) -> None:
        level["patch_size"] = [length, length]
        networks(lengths=[length, length])(level)

    return spoil


HOSTILE = [
    *(setting("step", value=value) for value in (0, -1.0, float("nan"), float("inf"), None, "x", [1])),
    *(setting("rotation", value=value) for value in ([], [[1, 0, 0]] * 2, [[1, 0]] * 3, [[1e999] * 3] * 3, [1, 2, 3])),
    *(setting("starts", value=value) for value in ([], [0, 16384], [0, 5, 4, 16384], [0, 1, 2, 2**40], [0, 1.0, 2], 0)),
    *(setting("scales", value=value) for value in ([], [0] * 323, [0] * 325, [0.0] * 324, 5, None)),
    *(setting("scales", 7, value=value) for value in (-17, 73, 2**40, True, None)),
    networks(n_hidden=5),
    networks(n_hidden=0),
    networks(n_hidden=2**40),
    networks(n_layers=2),
    networks(lengths=[32]),
    networks(lengths=[64, 64]),
    networks(lengths=[2**40, 2**40], n_hidden=2**40),
    networks(n_in=3),
    networks(n_out=10**9),
    networks(activation="gaussian"),
    networks(output="sigmoid"),
    networks(kind="mlp"),
    setting("name", value="quantised"),
    enlarged(256),
    enlarged(2**30),
]


@pytest.mark.parametrize("spoil", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_hostile_coding_is_refused_in_one_line_and_takes_no_memory(file, tmp_path, spoil):
    check_refused(spoilt(file, tmp_path / "x.miner", spoil))
