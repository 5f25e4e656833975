"""The entropy coder of quantised chunks: in C and in Python it reads and writes the same, and damage is an error."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_hostile import damage, damaged, fuzz

from models.packed import rans, slow_coder
from models.packed.integers import quarters
from models.packed.rans import BITS, MAGNITUDE, SIGNED, SKIPPED, SYMBOL
from models.packed.slow_coder import FARTHEST, LOWEST, TOTAL, WIDEST, Model, Reader

STARTS = np.array([0, 1, 9000, 9000, 16383, TOTAL])
"""Bounds of symbols: rare ones, common ones, and one that does not occur."""

WIDEST_READ = WIDEST + 4 * 16


@pytest.fixture(autouse=True)
def _compiled():
    assert rans._compiled() is not None, "the tests want a compiler"


far = st.one_of(st.integers(-3, 3), st.integers(-(2**9), 2**9), st.integers(-FARTHEST, FARTHEST))
of_scale = st.integers(-40, WIDEST_READ)
value = st.one_of(
    st.tuples(far, of_scale, st.just(SIGNED)),
    st.tuples(far.map(abs), of_scale, st.just(MAGNITUDE)),
    st.integers(0, 16).flatmap(lambda n: st.tuples(st.integers(0, 2**n - 1), st.just(n), st.just(BITS))),
    st.tuples(st.sampled_from([0, 1, 3, 4]), st.just(0), st.just(SYMBOL)),
    st.tuples(far, of_scale, st.just(SKIPPED)),
)


def read(reader: Reader, scale: int, kind: int) -> int | None:
    if kind == SYMBOL:
        return reader.symbol(STARTS.tolist())
    return {SIGNED: reader.value, MAGNITUDE: reader.magnitude, BITS: reader.bits}[kind](scale)


@fuzz
@given(st.lists(value, max_size=50))
@example([(FARTHEST, scale, MAGNITUDE) for scale in range(-40, WIDEST_READ + 1)])
@example([(-FARTHEST, scale, SIGNED) for scale in range(-40, WIDEST_READ + 1)])
def test_values_of_all_kinds_are_written_alike_and_read_again(numbers):
    values, scales, kinds = (np.array(part, np.int32) for part in zip(*numbers, strict=True)) if numbers else [[]] * 3
    values, scales, kinds = (np.array(part, np.int32) for part in (values, scales, kinds))
    data = rans.encode_values(values, scales, kinds, STARTS)
    assert data == slow_coder.encode_values(values, scales, kinds, STARTS, rans.tables())
    reader = Reader(data, rans.tables())
    assert [read(reader, scale, kind) for _, scale, kind in numbers if kind != SKIPPED] == [
        number for number, _, kind in numbers if kind != SKIPPED
    ]
    reader.end()


def plain(sizes: list[int], bases: list[int], spread: int, starts: list[int]) -> Model:
    """Networks that are coded tensor by tensor, of as many equal groups as there are symbols."""
    n_groups = len(starts) - 1
    return Model(0, len(sizes), 1, False, spread, 0, 0, starts, sizes * n_groups, [], [], bases, [], [])


def decoded(data: bytes, n_active: int, model: Model, most: int) -> tuple[list[int], list[int]] | None:
    """What the coder in C reads, and that in Python as well; None for what both refuse."""
    found = []
    for decode in (
        lambda: rans.decode_chunk(data, n_active, model.packed(), most),
        lambda: slow_coder.decode_chunk(data, n_active, model.packed(), rans.tables()),
    ):
        try:
            found.append(tuple(part.tolist() for part in decode()))
        except ValueError:
            found.append(None)
    assert found[0] == found[1]
    return found[0]


@fuzz
@given(st.data())
def test_chunks_of_plain_networks_are_read_alike(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    bases = data.draw(st.lists(st.integers(-120, 120), min_size=len(sizes), max_size=len(sizes)))
    model = plain(sizes, bases, data.draw(st.integers(-40, 70)), STARTS.tolist())
    groups = data.draw(st.lists(st.sampled_from([0, 1, 3, 4]), min_size=1, max_size=4))
    numbers, expected = [(group, 0, SYMBOL) for group in groups], []
    for _ in groups:
        for size, base in zip(sizes, bases, strict=True):
            scale = data.draw(of_scale)
            of_tensor = data.draw(st.lists(far, min_size=size, max_size=size))
            numbers += [(scale - base, model.spread, SIGNED), *((number, scale, SIGNED) for number in of_tensor)]
            expected += of_tensor
    values, scales, kinds = (np.array(part) for part in zip(*numbers, strict=True))
    chunk = rans.encode_values(values, scales, kinds, STARTS)
    assert decoded(chunk, len(groups), model, sum(sizes)) == (groups, expected)
    assert decoded(chunk + b"\0\0", len(groups), model, sum(sizes)) is None
    assert decoded(chunk[:-1], len(groups), model, sum(sizes)) is None


MODELS = [
    plain([3, 4], [15, -7], 3, [0, 100, TOTAL]),
    Model(2, 3, 3, True, 2, 12, 4, [0, 8000, TOTAL], [4, 6], [3, 1], [8, 8, 8], [2], [1], [-4]),
    Model(4, 2, 1, False, 2, 24, -12, [0, TOTAL], [5], [], [8], [2, 2, 2], [1, 1, 1], [0, 3, -200]),
    Model(3, 2, 2, True, 60, 70, 60, [0, TOTAL], [3], [60], [60, 60], [9, 60], [1, 60], [0, 200]),
]


@pytest.mark.parametrize("model", MODELS)
@fuzz
@given(data=st.binary(min_size=1, max_size=300), n_active=st.integers(1, 9))
def test_random_bytes_are_refused_by_both(model, data, n_active):
    most = 300
    found = decoded(data, n_active, model, most)
    assert found is None or len(found[0]) == n_active


def random_chunk(model: Model, n_active: int, seed: int) -> bytes:
    """A sound chunk: what is read of random bits, which is written again."""
    told = []

    class Source(Reader):
        def _refill(self):
            if self.state < slow_coder.LEAST:
                self.state = self.state << 16 | int(rng.integers(2**16))

        def bits(self, n):
            told.append((number := super().bits(n), n, BITS))
            return number

        def symbol(self, starts):
            told.append((number := super().symbol(starts), len(bounds), SYMBOL))
            bounds.append(starts)
            return number

        def end(self):
            pass

    rng, bounds = np.random.default_rng(seed), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow_coder, "Reader", Source)
        slow_coder.decode_chunk(rng.bytes(3) + b"\x7f", n_active, model.packed(), rans.tables())
    writer = slow_coder.Writer(rans.tables())
    for number, n, kind in reversed(told):
        if kind == BITS:
            writer.bits(number, n)
        else:
            writer.symbol(*bounds[n][number : number + 2])
    return writer.bytes()


@pytest.mark.parametrize("model", MODELS[:3])
def test_chunks_of_all_models_are_read_alike_and_damage_is_refused_by_both(model):
    chunk = next(random_chunk(model, 5, seed) for seed in range(100) if is_sound(model, seed))
    groups, values = decoded(chunk, 5, model, 300)
    assert len(groups) == 5
    assert len(set(values)) > 10
    for how in [("cut", place / 20, 0) for place in range(20)] + [("grow", 0.0, 1), ("grow", 0.0, 2)]:
        assert decoded(damaged(chunk, how), 5, model, 300) is None
    for n_active in (4, 6, 100):
        assert decoded(chunk, n_active, model, 300) is None


def is_sound(model: Model, seed: int) -> bool:
    try:
        random_chunk(model, 5, seed)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("model", MODELS[:3])
@fuzz
@given(how=damage, seed=st.integers(0, 50))
def test_damaged_chunks_are_read_alike(model, how, seed):
    if is_sound(model, seed):
        decoded(damaged(random_chunk(model, 5, seed), how), 5, model, 300)


def test_the_bounds_of_tables_grow_and_end_where_all_symbols_do():
    tables = rans.tables()
    assert len(tables) == WIDEST - LOWEST + 1
    for scale, bounds in enumerate(tables, LOWEST):
        counts = np.diff(bounds)
        assert (bounds[0], bounds[-1]) == (0, TOTAL)
        assert (counts > 0).all()
        assert (np.diff(counts[1:-1]) <= 0).all(), f"larger magnitudes are rarer, at scale {scale}"
        assert counts[-1] == 4


def discrete_normal(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Integers, and how likely they are."""
    numbers = np.arange(-int(12 * sigma) - 2, int(12 * sigma) + 3)
    likely = np.exp(-(numbers**2) / (2 * sigma**2))
    return numbers, likely / likely.sum()


@pytest.mark.parametrize("scale", [-3, 0, 5, 9, 12, 13, 16, 31, 40])
def test_normally_distributed_integers_cost_their_entropy(scale):
    numbers, likely = discrete_normal(2 ** (scale / 4))
    values = np.random.default_rng(0).choice(numbers, 50_000, p=likely)
    entropy = -(likely[likely > 0] * np.log2(likely[likely > 0])).sum()
    data = rans.encode_values(values, np.full(50_000, scale), np.full(50_000, SIGNED), STARTS)
    assert 0.98 < 8 * len(data) / 50_000 / entropy < 1.02


@fuzz
@given(arrays(np.int64, 20, elements=st.integers(1, 2**62 - 1)))
@example(np.array([2**k + d for k in range(1, 62) for d in (-1, 0, 1)]))
def test_quarters_of_octaves_are_the_same_everywhere_and_nearly_exact(n):
    found = quarters(n).tolist()
    assert found == [slow_coder.quarters(one) for one in n.tolist()]
    for one, two in zip(found, n.tolist(), strict=True):
        assert 2**one <= two**2 * (1 + 1e-4)
        assert two**2 < 2 ** (one + 1) * (1 + 1e-4)
