"""Networks that are rounded to integers: what is written of them comes back, and rounding errs as little as it can."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import random_network
from test_hostile import check_message, gabor_run  # noqa: F401
from test_packed_file import parts_of, quantised, random_model

from models.encoding import encode
from models.level import Level
from models.miner import MINER
from models.packed import rans
from models.packed.coding import coding_of
from models.packed.integers import AMPLITUDES
from models.packed.layout import beginning
from models.packed.quantised import Quantised
from models.shape import NetworkShape
from packing import rounding
from packing.quantise import Quantiser
from packing.rounding import fold
from packing.write import write_packed
from utils.blocks import block_coords
from utils.errors import InputError

SINES = dict(activation="sine", omega=30.0)
FILTERS = dict(kind="filters", activation="gabor", output="linear", omega=10.0)
FORMS = [
    dict(n_layers=2, output="sine"),
    dict(n_layers=2, output="sigmoid", centre=0.5),
    dict(n_layers=3, output="sine", centre=0.5),
    dict(n_layers=3, output="linear"),
    dict(n_layers=4, output="sigmoid"),
    dict(n_layers=4, output="sine"),
    dict(n_layers=2, output="linear") | SINES,
    dict(n_layers=4, output="sine") | SINES,
    dict(n_layers=3, output="sigmoid") | SINES,
    dict(n_layers=3) | FILTERS,
    dict(n_layers=4) | FILTERS,
]
MLPS = [form for form in FORMS if "kind" not in form]


def bits(network) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}


def level_with_gaps(form: dict) -> Level:
    """Networks of two widths and RGB; some units lead nowhere, and one block's last layer is 0."""
    level = random_model((40, 56), (8, 8), 3, 1, (4, 7), frequencies=(1.0, 2.5), **form).levels[0]
    with torch.no_grad():
        for network in level.networks:
            for weight in network.weight[1:] if network.shape.kind == "mlp" else network.weight:
                weight[3, 2] = 0
                weight[4, :3] = 0
            network.weight[-1][5] = 0
    return level


@pytest.mark.parametrize("error", [3e-5, 1e-3, 0.1])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_networks_are_their_integers_bit_for_bit(form, error):
    level, coding = Quantiser.of(level_with_gaps(form)).quantised(error)
    for network in level.networks:
        integers = coding.integers_of(network)
        assert error > 0.01 or np.abs(integers).max() > 1
        again = coding.networks_of(integers, network.shape)
        assert bits(again) == bits(network)
        assert np.array_equal(coding.integers_of(again), integers)


@pytest.mark.parametrize("is_compiled", [True, False], ids=["c", "python"])
@pytest.mark.parametrize("error", [3e-5, 1e-3, 0.1])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_chunks_come_back_bit_for_bit(monkeypatch, form, error, is_compiled):
    level, coding = Quantiser.of(level_with_gaps(form)).quantised(error)
    again = coding_of({"coding": coding.record(), "networks": [shape.record() for shape in level.shapes]})
    assert again == coding
    if not is_compiled:
        monkeypatch.setattr(rans, "_compiled", lambda: None)
    for blocks in (slice(0, 12), slice(12, 35)):
        group = level.group[blocks]
        first = [int((level.group[: blocks.start] == one).sum()) for one in range(2)]
        counts = [int((group == one).sum()) for one in range(2)]
        some = [
            network.select(slice(start, start + count))
            for network, start, count in zip(level.networks, first, counts, strict=True)
        ]
        decoded, networks = again.decode(coding.encode(group, some), len(group))
        assert torch.equal(decoded, group)
        assert list(map(bits, networks)) == list(map(bits, some))


def spoil(level: Level, how: str) -> None:
    """Make networks extreme."""
    with torch.no_grad():
        for network in level.networks:
            if how == "silent":
                network.weight[-1].zero_()
                network.bias[-1].zero_()
            elif how == "nothing":
                for tensor in [*network.weight, *network.bias]:
                    tensor.zero_()
            elif how == "tiny":
                network.weight[-1].mul_(1e-12)
                network.bias[-1].mul_(1e-12)
            else:
                network.weight[-1].mul_(1e6)
                network.weight[0].mul_(1e3)


@pytest.mark.parametrize("error", [1e-12, 1e-3, 1e4])
@pytest.mark.parametrize("how", ["silent", "nothing", "tiny", "huge"])
@pytest.mark.parametrize("form", [FORMS[0], FORMS[4], FORMS[7], FORMS[9]], ids=str)
def test_networks_and_steps_that_are_extreme_come_back_all_the_same(form, how, error):
    level = random_model((16, 24), (8, 8), 3, 1, (4, 7), frequencies=(1.0, 2.5), **form).levels[0]
    spoil(level, how)
    level, coding = Quantiser.of(level).quantised(error)
    again = Quantised.from_record(level.shapes, coding.record())
    _, networks = again.decode(coding.encode(level.group, list(level.networks)), len(level.group))
    assert list(map(bits, networks)) == list(map(bits, level.networks))
    assert all(network.is_finite().all() for network in networks)


def test_each_tenth_of_the_error_costs_the_bits_of_a_digit(fitted):
    for level in fitted:
        made = [Quantiser.of(level).quantised(error) for error in (1e-4, 1e-5)]
        sizes = [len(coding.encode(one.group, list(one.networks))) for one, coding in made]
        assert np.diff(sizes) * 8 / level.n_parameters == pytest.approx(np.log2(10), abs=0.8)


@torch.no_grad()
@pytest.mark.parametrize("form", MLPS, ids=str)
def test_what_is_folded_is_the_same_function(form):
    generator = torch.Generator().manual_seed(1)
    shape = NetworkShape(**dict(n_in=6, n_out=3, n_hidden=9) | form)
    network, coords = random_network(11, shape), torch.rand(50, 6, generator=generator) * 2 - 1
    if shape.output == "sine":
        network.amplitude.copy_(2.0 ** (torch.randint(-200, 100, (11, 1, 1), generator=generator) / AMPLITUDES))
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    folded = fold(network, rotation)
    values = coords.expand(11, -1, -1)
    for layer in folded.layers[:-1]:
        assert (layer[:, -1] >= 0).all(), "biases of at least 0"
        z = values @ layer[:, :-1] + layer[:, -1:]
        values = torch.sin(shape.omega * z) if shape.omega else torch.exp(-(z**2) / 2) - shape.centre
    size = folded.layers[-1][:, :-1, 0].abs()
    assert (size.diff(dim=1) <= 0).all(), "units in the order of their weights in the first channel"
    out = (values @ folded.layers[-1][:, :-1] + folded.layers[-1][:, -1:]) @ rotation
    if shape.output == "sine":
        out = folded.amplitude * torch.sin(out / folded.amplitude)
        torch.testing.assert_close(folded.amplitude, network.amplitude)
    out = torch.sigmoid(out) if shape.output == "sigmoid" else out
    torch.testing.assert_close(out, network(coords), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def fitted(small_run, best_run) -> list[Level]:
    """Levels of real fits: networks of three layers and, of the method that fits best, of two and of several widths."""
    return [MINER.load(small_run).levels[0], MINER.load(best_run).levels[0]]


@torch.no_grad()
def errors(level: Level, error: float) -> torch.Tensor:
    """The mean squared error of the blocks, group by group."""
    coords = encode(block_coords(level.patch_size), level.frequencies)
    rounded, _ = Quantiser.of(level).quantised(error)
    pairs = zip(level.networks, rounded.networks, strict=True)
    return torch.cat([(one(coords) - other(coords)).square().mean((1, 2)) for one, other in pairs])


@pytest.mark.parametrize("error", [3e-4, 3e-3])
def test_errors_that_are_fed_back_are_smaller_and_never_larger(monkeypatch, fitted, error):
    for level in fitted:
        fed_back = errors(level, error)
        monkeypatch.setattr(rounding, "_MOST_PARAMETERS", 0)
        alone = errors(level, error)
        monkeypatch.undo()
        assert float(fed_back.sum() / alone.sum()) < 0.6
        assert (fed_back <= alone).all()


def volume_level() -> Level:
    """Networks of two widths, of more parameters than are fed back at once."""
    return random_model((16, 16, 16), (8, 8, 8), 1, 1, (8, 12), frequencies=(3.0, 6.0), n_layers=3).levels[0]


def test_volumes_of_several_widths_feed_errors_back_by_a_quarter_of_their_points(monkeypatch):
    level = volume_level()
    quantiser = Quantiser.of(level)
    assert len(quantiser.coords) == 4 * len(quantiser.seen) == 512
    cells = block_coords(level.patch_size)[quantiser.seen].add(1).mul(2).long()
    assert (cells.unique(dim=0, return_counts=True)[1] == 2).all(), "evenly, two in each of the cells of eight"
    fed_back = errors(level, 1e-3)
    monkeypatch.setattr("packing.rounding.curvature", lambda folded, *_: no_curvature(folded))
    alone = errors(level, 1e-3)
    assert float(fed_back.sum() / alone.sum()) < 0.8
    assert (fed_back <= alone).all()


def no_curvature(folded) -> list[torch.Tensor]:
    n_blocks, n = rounding.flat(folded.layers).shape
    return [torch.eye(n).repeat(n_blocks, 1, 1)]


def test_parts_of_the_curvature_lie_on_its_diagonal():
    level = volume_level()
    network, coords, rotation = level.networks[0], encode(block_coords((8, 8, 8)), level.frequencies), torch.eye(1)
    folded = fold(network, rotation)
    [whole] = rounding.curvature(folded, network, rotation, coords)
    parts = rounding.curvature(folded, network, rotation, coords, group=100)
    assert sum(part.shape[1] for part in parts) == whole.shape[1]
    for first, part in zip(range(0, whole.shape[1], 100), parts, strict=True):
        here = slice(first, first + part.shape[1])
        torch.testing.assert_close(part, whole[:, here, here])


def test_half_the_error_is_a_quarter_squared(fitted):
    for level in fitted:
        assert 3 < float(errors(level, 3e-4).mean() / errors(level, 1.5e-4).mean()) < 5.3


def test_so_much_error_is_made_as_is_allowed(fitted):
    for level in fitted:
        error = Quantiser.of(level).error_for(1e-5)
        share = float((level.group >= 0).double().mean())
        assert 0.5e-5 < share * float(errors(level, error).mean()) < 2e-5


@pytest.fixture(scope="module")
def quantised_file(small_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "x.miner"
    write_packed(path, *quantised(MINER.load(small_run)))
    return path


def spoilt(quantised_file: Path, path: Path, spoil) -> Path:
    """A file whose header says something else of the coding of its finest level."""
    header, index, rest = parts_of(quantised_file)
    spoil(header["levels"][-1])
    dumps = json.dumps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json, "dumps", lambda *arguments, **how: dumps(*arguments, **how | {"allow_nan": True}))
        path.write_bytes(beginning(header, index) + rest)
    return path


def check_refused(path: Path) -> None:
    """In one line that names the file, before memory is taken."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="is not consistent") as error:
            MINER.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    check_message(error.value, path.name)


def setting(*keys, value):
    """A change of one entry of the coding of a level."""

    def spoil(level: dict) -> None:
        place = level["coding"]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return spoil


HOSTILE = [
    *(setting("steps", value=value) for value in ([], [1.0], [1.0] * 4, [1.0, 1.0, "x"], None, 3, {})),
    *(setting("steps", 0, value=value) for value in (float("nan"), float("inf"), 0, -1.0, None, "1" * 500, [1])),
    *(setting("floors", value=value) for value in ([], [0], [0] * 3, [0.0, 0], [True, 0], [0, 10**30], "ab")),
    *(setting("rotation", value=value) for value in ([], [[1, 0, 0]] * 2, [[1, 0]] * 3, [[1e999] * 3] * 3, [1, 2, 3])),
    *(setting("starts", value=value) for value in ([], [0], [0, 16383], [1, 16384], [0, 5, 16384], [0, 16384.0], 0)),
    *(setting("starts", value=value) for value in ([0, "x"], [0, 2**40], [-1, 16384], {"0": 0, "16384": 1})),
    *(setting("scales", name, value=value) for name in ("spread", "first", "difference") for value in (1.0, 201, None)),
    *(setting("scales", name, value=[]) for name in ("base", "bias", "chroma", "out")),
    *(setting("scales", name, 0, value=2**31) for name in ("base", "bias", "chroma", "out")),
    setting("scales", value=[]),
    lambda level: level["coding"].pop("steps"),
    lambda level: level["coding"]["scales"].pop("chroma"),
    lambda level: level["networks"][0].update(n_hidden=10**6),
    lambda level: level["networks"][0].update(n_hidden=2**40),
    lambda level: level["networks"][0].update(n_layers=2**9),
    lambda level: level["networks"][0].update(n_in=10**9),
    lambda level: level["networks"].append(level["networks"][0] | {"n_layers": 4}),
]


@pytest.mark.parametrize("spoil", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_hostile_coding_is_refused_in_one_line_and_takes_no_memory(quantised_file, tmp_path, spoil):
    check_refused(spoilt(quantised_file, tmp_path / "x.miner", spoil))


@pytest.mark.parametrize(
    "spoil",
    [
        setting("starts", value=[0, 16384]),
        setting("scales", "first", value=-200),
        setting("scales", "spread", value=200),
        setting("scales", "base", 1, value=200),
        setting("floors", value=[200, 200]),
        setting("steps", value=[1e300, 1e-300, 1e300]),
        setting("steps", value=[1e-300] * 3),
        setting("rotation", value=[[0.0] * 3] * 3),
    ],
    ids=map(str, range(8)),
)
def test_a_coding_that_is_possible_decodes_to_the_size_or_is_refused_in_one_line(quantised_file, tmp_path, spoil):
    try:
        decoded = MINER.load(spoilt(quantised_file, tmp_path / "x.miner", spoil)).decode()
    except InputError as error:
        check_message(error, "x.miner")
    else:
        assert decoded.shape == (3, 75, 100)
        assert decoded.isfinite().all()
