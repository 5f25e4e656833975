"""A decoder of fits in one file that was written from docs/format.md alone: NumPy, and nothing of the project's."""

import json
import struct
import zlib

import numpy as np

LANCZOS = 0.00737827086021, -0.0679972630286, 0.271010568257, 0.892770774085, -0.133274635536, 0.0301122853619
EVEN = {"spline": (-1, (9 / 32, 22 / 32, 1 / 32)), "lanczos": (-3, LANCZOS)}  # first pixel of a sample 2i, and weights
A, B, C, D = 0.525731087, 0.850650787, 0.309017003, 0.809017003
DIRECTIONS = (
    *((0, A, B), (0, A, -B), (B, 0, A), (B, 0, -A), (A, B, 0), (A, -B, 0), (0, 0, 1)),
    *((0.5, C, D), (C, D, 0.5), (0.5, C, -D), (C, D, -0.5), (0.5, -C, D), (C, -D, 0.5), (0.5, -C, -D)),
    *((C, -D, -0.5), (1, 0, 0), (D, 0.5, C), (D, -0.5, C), (D, 0.5, -C), (D, -0.5, -C), (0, 1, 0)),
)
RATIOS = (
    *(1440801, 15004422, 78665070, 253857248, 581260615, 1044178424, 1580030169),
    *(2117713904, 2605029347, 3015876649, 3344923893, 3599040369, 3790295335, 3931635878),
    *(4034748382, 4109287957, 4162825044, 4201101925, 4228380000, 4247775344, 4261543595),
)
ZEROS_AND_RATIOS = (
    *((4294319902, 483), (4292341693, 6163), (4286445224, 52418), (4272031750, 317125), (4242236523, 1440801)),
    *((4188774636, 5145013), (4103650747, 15004422), (3981108382, 36905875), (3819071355, 78665070)),
    *((3619619976, 148652826), (3388491525, 253857248), (3133927343, 398132550), (2865296878, 581260615)),
    *((2591854073, 799036310), (2321826706, 1044178424), (2061891250, 1307656790), (1816986729, 1580030169)),
    *((1590375719, 1852521207), (1383855085, 2117713904), (1198035171, 2369882518), (1032629868, 2605029347)),
    *((886722532, 2820730047), (758990523, 3015876649), (647883229, 3190386796), (551755765, 3344923893)),
)


def planes(data, dtype):
    return np.frombuffer(data, np.uint8).reshape(4, -1).T.copy().view(dtype)[:, 0]


def decode(data):
    """The levels of the header, and their pictures (c, *size) as finer ones build on them, coarsest first."""
    magic, major, _, n_header, n_index, *sums = struct.unpack("<8sHHIIIII", data[:32])
    header, index = data[32 : 32 + n_header], data[32 + n_header : 32 + n_header + n_index]
    assert (magic, major, *sums) == (b"\x89MINER\r\n", 1, *map(zlib.crc32, (header, index, data[:28])))
    header, index, bitmaps = json.loads(zlib.decompress(header)), np.frombuffer(zlib.decompress(index), np.uint8), []
    for level in header["levels"]:
        grid = -(-np.array(level["size"]) // level["patch_size"])
        bits, index = np.split(index, [-(-grid.prod() // 8)])
        bitmaps.append(np.unpackbits(bits)[: grid.prod()].reshape(grid))
    grids = [-(-np.array(bitmap.shape) // header["chunk"]) for bitmap in bitmaps]  # of the chunks
    lengths, checksums = (planes(half, "<u4").tolist() for half in np.split(index, 2))
    assert 32 + n_header + n_index + sum(lengths) == len(data)
    place, number = len(data) - sum(lengths[: sum(map(np.prod, grids))]), 0
    pictures = [np.zeros((header["n_channels"], *[1] * len(header["size"])), np.float32)]  # an edge goes on for ever
    readers = {"float32": read_float32, "quantised": read_quantised, "coefficients": read_cosines}
    for level, bitmap, grid in zip(header["levels"], bitmaps, grids, strict=True):
        networks, read = {}, readers[level["coding"]["name"]]
        for chunk, corner in enumerate(np.ndindex(*grid)):
            blocks = [tuple(block) for block in np.argwhere(bitmap) if (block // header["chunk"] == corner).all()]
            part = data[place : place + lengths[number]]
            if blocks:
                assert checksums[number] == zlib.crc32(struct.pack("<II", level["level"], chunk) + part)
                networks.update(zip(blocks, read(part, len(blocks), level), strict=True))
            place, number = place + lengths[number], number + 1
        pictures.append(refine(pictures[-1], level, networks))
    return header["levels"], pictures[1:]


def tensors(shape):
    """The sizes of the tensors of one network by name, in the order of the page."""
    n_in, n_out, width, last = shape["n_in"], shape["n_out"], shape["n_hidden"], shape["n_layers"] - 1
    is_filter = shape["output"] == "gabor"
    if shape.get("kind") == "cosines":
        return {"amplitude": (1, 1), "weight.0": (np.prod(shape["lengths"]), n_out)}
    widths = [*([] if is_filter else [n_in]), *[width] * last, n_out]
    sizes = {"amplitude": (1, 1)} | {f"weight.{i}": (widths[i], widths[i + 1]) for i in range(len(widths) - 1)}
    sizes |= {f"bias.{i}": (1, n) for i, n in enumerate(widths[1:])}
    if is_filter:
        rows = {"omega": n_in, "phi": 1, "mu": n_in, "gamma": 1}
        return sizes | {f"{name}.{i}": (n, width) for name, n in rows.items() for i in range(last)}
    return sizes | {f"a.{i}": (1, 1) for i in range(last * (shape["omega"] is None) + (shape["output"] == "sine"))}


def read_float32(data, n, level):
    """(shape, tensors by name) of each block."""
    data = zlib.decompress(data)
    groups, numbers, found = list(data[:n]), planes(data[n:], "<f4"), {}
    for group, shape in enumerate(level["networks"]):
        mine = [block for block in range(n) if groups[block] == group]
        found |= {block: (shape, {}) for block in mine}
        for name, size in tensors(shape).items():
            for block in mine:
                found[block][1][name], numbers = numbers[: np.prod(size)].reshape(size), numbers[np.prod(size) :]
    assert len(numbers) == 0
    return [found[block] for block in range(n)]


def read_quantised(data, n, level):
    """(shape, tensors by name) of each block."""
    coder, found = Coder(data), []
    for shape in [level["networks"][coder.symbol(level["coding"]["starts"])] for _ in range(n)]:
        t = (read_filters if shape["output"] == "gabor" else read_mlp)(coder, shape, level["coding"])
        found.append((shape, {name: np.float32(t.get(name, 1)).reshape(s) for name, s in tensors(shape).items()}))
    assert (coder.state, coder.words) == (65536, [])
    return found


def bounds_of(ratio):
    """The bounds of the symbols of a magnitude; the last symbol is the escape."""
    weights, w, q = [1 << 31], 1 << 32, ratio
    while (w := w * q >> 32) >= 1 << 17:
        weights.append(w)
        q = (q * ratio >> 32) * ratio >> 32
    counts = [1 + weight * (16384 - 4 - len(weights)) // sum(weights) for weight in weights]
    counts[0] += 16384 - 4 - sum(counts)
    return [sum(counts[:k]) for k in range(len(counts) + 1)] + [16384]


def bounds_of_coefficients(zeros, ratio):
    """The bounds of the symbols of a coefficient's magnitude; the last symbol is the escape."""
    left, weights = (1 << 32) - zeros, []
    while len(weights) < 14 and (w := left * ((1 << 32) - ratio) >> 32) >= 1 << 17:
        weights.append(w)
        left -= w
    room = 16384 - 1 - (1 + len(weights))
    counts = [1 + (w * room >> 32) for w in [*weights, left]]
    counts = [16384 - sum(counts), *counts]
    return [sum(counts[:k]) for k in range(len(counts) + 1)]


class Coder:
    """Reads the integers of a chunk, one after another."""

    def __init__(self, data):
        self.bounds = {scale: bounds_of(ratio) for scale, ratio in enumerate(RATIOS, -8)}
        self.fine = {scale: bounds_of_coefficients(*pair) for scale, pair in enumerate(ZEROS_AND_RATIOS, -16)}
        self.state, self.words = int.from_bytes(data[:4], "little"), np.frombuffer(data[4:], "<u2").tolist()[::-1]

    def take(self, value, state):
        if state < 65536:
            state = (state << 16) + self.words.pop()
        self.state = state
        return value

    def bits(self, n):
        assert n <= 16
        return self.take(self.state % (1 << n), self.state >> n)

    def symbol(self, bounds):
        rest, t = divmod(self.state, 16384)
        k = sum(bound <= t for bound in bounds) - 1
        return self.take(k, (bounds[k + 1] - bounds[k]) * rest + t - bounds[k])

    def magnitude(self, scale):
        m = max(0, (scale - 9) // 4)
        return self.scaled(self.bounds[max(scale - 4 * m, -8)], m)

    def scaled(self, bounds, m):
        """A magnitude of these bounds, times 2^m."""
        k = self.symbol(bounds)
        if k == len(bounds) - 2:
            e = self.bits(5)
            k += (1 << e) - 1 + self.bits(min(e, 14)) + (self.bits(max(e - 14, 0)) << 14)
        magnitude = (k << m) + self.bits(m)
        assert magnitude <= 1 << 28
        return magnitude

    def value(self, scale):
        return self.signed(self.magnitude(scale))

    def coefficient(self, scale):
        m = max(0, (scale - 5) // 4)
        return self.signed(self.scaled(self.fine[scale - 4 * m], m))

    def signed(self, magnitude):
        return -magnitude if magnitude and self.bits(1) else magnitude


def log(n):
    """2 log2 n, rounded down."""
    h = n.bit_length() - 1
    return 2 * h + ((n << 15) >> h >= 46341)


def read_filters(coder, shape, coding):
    """The tensors of one filter network."""
    t, scales, (_, *sizes) = {}, coding["scales"], tensors(shape).items()
    for (name, size), step, base in zip(sizes, coding["steps"], scales["base"], strict=True):
        scale = base + coder.value(scales["spread"])
        t[name] = step * np.array([coder.value(scale) for _ in range(np.prod(size))])
    return t


def read_mlp(coder, shape, coding):
    """The tensors of one MLP, but those that are 1."""
    scales, steps, last = coding["scales"], coding["steps"], shape["n_layers"] - 1
    amplitude = 2 ** ((coder.bits(11) - 1024) / 32) if shape["output"] == "sine" else 1
    weights = list(read_last(coder, shape["n_hidden"], scales))
    biases = [coder.value(scale) for scale in scales["out"]]
    mix = np.array(coding["rotation"]) * steps[last] / amplitude
    t = {"amplitude": amplitude, f"weight.{last}": np.array(weights) @ mix, f"bias.{last}": np.array(biases) @ mix}
    for layer in range(last - 1, -1, -1):
        base, n = scales["base"][layer] + coder.value(scales["spread"]), shape["n_hidden" if layer else "n_in"]
        energies, units, factors = [sum(y * y for y in row) for row in weights], [], []
        for energy in energies:
            gain = max(log(max(energy, 1)), coding["floors"][layer])
            unit = [coder.value(base + gain) for _ in range(n)] if energy else [0] * n
            units.append([*unit, coder.magnitude(base + gain + scales["bias"][layer]) if energy else 0])
            factors.append(steps[layer] * 2 ** (-gain / 4))
        *weights, biases = zip(*units, strict=True)
        t |= {f"weight.{layer}": np.array(weights) * factors, f"bias.{layer}": np.array(biases) * factors}
    return t


def read_last(coder, width, scales):
    """The integers of the last layer, those of the rotated channels for each unit."""
    own = [chroma + coder.value(scales["spread"]) for chroma in scales["chroma"]]
    u = first = coder.magnitude(scales["first"])
    fall = scales["difference"] + log(max(first, 1) ** 2) - log(width**2)
    for k in range(width):
        u -= coder.magnitude(fall) if k and first else 0
        assert u >= 0
        y = -u if u and coder.bits(1) else u
        yield [y, *map(coder.value, own)]


def read_cosines(data, n, level):
    """(shape, tensors by name) of each block."""
    coder, coding, found = Coder(data), level["coding"], []
    scales, mix = np.reshape(coding["scales"], (3, 9, 12)), np.array(coding["rotation"]) * coding["step"]
    for shape in [level["networks"][coder.symbol(coding["starts"])] for _ in range(n)]:
        width, n_out = shape["n_hidden"], shape["n_out"]
        weights = np.zeros((*shape["lengths"], n_out), np.int64)
        for part in np.ndindex(*[length // width for length in shape["lengths"]]):
            q = weights[tuple(slice(p * width, p * width + width) for p in part)]
            for channel in range(n_out):
                for f in np.ndindex(*[width] * len(part)):
                    q[(*f, channel)] = coder.coefficient(scales[context(q, f, channel)])
        weights = np.float32(weights.reshape(-1, n_out) @ mix)
        found.append((shape, {"weight.0": weights, "amplitude": np.ones((1, 1), np.float32)}))
    assert (coder.state, coder.words) == (65536, [])
    return found


def context(q, f, channel):
    """(class of channels, band, activity) of the coefficient of some frequencies, of those of a part."""
    n, axes = len(q), range(len(f))
    s = sum((64 * i // n) ** 2 for i in f)
    band = 1 + max(0, min(7, (log(s) - 4) // 3)) if any(f) else 0
    near = [(2, {axis: -1}) for axis in axes] + [(1, {axis: -2}) for axis in axes]
    near += [(1, {one: -1, two: by}) for one in axes for two in axes if one < two for by in (-1, 1)]
    total = abs(q[(*f, 0)]) if channel else 0
    for times, moves in near:
        at = [i + moves.get(axis, 0) for axis, i in enumerate(f)]
        total += times * abs(q[(*at, channel)]) if min(at) >= 0 and max(at) < n else 0
    return min(channel, 2), band, min(11, log(int(total) + 1) - 1) if total else 0


def cosines(shape, t):
    """What a network of cosines predicts at the pixels of its block, (pixels, n_out)."""
    width, values = shape["n_hidden"], t["weight.0"].reshape(*shape["lengths"], -1)
    f, i = np.arange(width)[:, None], np.arange(width)
    waves = np.sqrt(np.where(f, 2, 1) / width) * np.cos(np.pi * f * (2 * i + 1) / (2 * width))
    for axis, length in enumerate(shape["lengths"]):
        parts = np.moveaxis(values, axis, -1)
        parts = parts.reshape(*parts.shape[:-1], length // width, width) @ np.float32(waves)
        values = np.moveaxis(parts.reshape(*parts.shape[:-2], length), -1, axis)
    return values.reshape(-1, values.shape[-1])


def predict(shape, t, x):
    if shape.get("kind") == "cosines":
        return cosines(shape, t)
    last, is_gaussian = shape["n_layers"] - 1, shape["omega"] is None
    if shape["output"] == "gabor":
        z = 1
        for i in range(last):
            distance = ((x[:, :, None] - t[f"mu.{i}"]) ** 2).sum(1)
            g = np.exp(-np.abs(t[f"gamma.{i}"]) / 2 * distance) * np.sin(x @ t[f"omega.{i}"] + t[f"phi.{i}"])
            z = (z * g) @ t[f"weight.{i}"] + t[f"bias.{i}"]
        return z
    for i in range(last):
        z = x @ t[f"weight.{i}"] + t[f"bias.{i}"]
        if is_gaussian:
            x = np.exp(-(z**2) / (2 * t[f"a.{i}"] ** 2)) - shape.get("centre", 0)
        else:
            x = np.sin(shape["omega"] * z)
    z = x @ t[f"weight.{last}"] + t[f"bias.{last}"]
    if shape["output"] == "sine":
        return t["amplitude"] * np.sin(t[f"a.{last * is_gaussian}"] * z)
    return z if shape["output"] == "linear" else 1 / (1 + np.exp(-z))


def upsample(picture, size, kind):
    first, weights = EVEN[kind]
    for axis, length in enumerate(size, 1):
        i, side = np.arange(length) // 2, 1 - 2 * (np.arange(length) % 2)
        pixels = [(i + side * (first + k)).clip(0, picture.shape[axis] - 1) for k in range(len(weights))]
        picture = sum(np.float32(w) * picture.take(at, axis) for w, at in zip(weights, pixels, strict=True))
    return picture.clip(0, 1)


def inputs_of_pixels(level):
    axes = [(2 * np.arange(n) + 1) / n - 1 for n in level["patch_size"]]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes)).astype(np.float32)
    if level["frequencies"] is None:
        return x
    along = x if len(axes) == 2 else x @ np.array(DIRECTIONS, np.float32).T
    phases = np.concatenate([np.float32(frequency) * along for frequency in level["frequencies"]], 1)
    return np.concatenate([np.sin(phases), np.cos(phases)], 1)


def refine(coarse, level, networks):
    """The picture of a level from the coarser one."""
    coarse, patch, x = np.round(coarse * 32768) / np.float32(32768), level["patch_size"], inputs_of_pixels(level)
    base, picture = (upsample(coarse, level["size"], kind) for kind in ("spline", level["fill"]))
    for block, (shape, t) in networks.items():
        here = (slice(None), *(slice(i * n, i * n + n) for i, n in zip(block, patch, strict=True)))
        inside = tuple(slice(0, n) for n in picture[here].shape)
        values = predict(shape, t, x).T.reshape(-1, *patch)[inside]
        picture[here] = (base[here] + values if level["residual"] else values).clip(0, 1)
    return picture


def show(levels, pictures, number):
    """The picture of a level as it is shown: where it is not whole, means of a finer one."""
    wanted = len(levels) - 1 - number
    at = next((at for at in range(wanted, len(levels)) if levels[at]["is_whole"]), len(levels) - 1)
    picture, n = pictures[at], 2 ** (at - wanted)
    for axis, length in enumerate(levels[wanted]["size"], 1):
        pixels = picture.take(np.minimum(np.arange(length * n), picture.shape[axis] - 1), axis)
        picture = np.add.reduceat(pixels, range(0, length * n, n), axis) / np.float32(n)
    return picture
