/** Samples between pixels, computed by the decoder's WebAssembly; and means of pixels. */

import { firstOfLanczos, firstOfSpline, sizeOf } from "../file/windows.js";

const KERNELS = {
    spline: { nTaps: 3, firstOf: firstOfSpline, weightsOf: splineWeights },
    lanczos: { nTaps: 6, firstOf: firstOfLanczos, weightsOf: lanczosWeights },
};

/** The uniform quadratic B-spline around a sample. */
function splineWeights(sample, factor) {
    const t = (2 * (sample % factor) + 1 - factor) / (2 * factor);
    return [(1 / 2 - t) ** 2 / 2, 3 / 4 - t ** 2, (1 / 2 + t) ** 2 / 2];
}

/** Lanczos' kernel of radius 3 around a sample, whose sum is made 1. */
function lanczosWeights(sample, factor) {
    const nearest = 2 * sample + 1 - factor;
    const t = nearest / (2 * factor) - Math.floor(nearest / (2 * factor));
    const values = [-2, -1, 0, 1, 2, 3].map((k) => sinc(t - k) * sinc((t - k) / 3));
    const total = values.reduce((a, b) => a + b);
    return values.map((value) => value / total);
}

/** Exact at whole numbers, so that pixels come through as they are. */
function sinc(x) {
    return Number.isInteger(x) ? Number(x === 0) : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Round values in memory to steps of 2^-15. */
export function roundToSteps({ wasm }, start, count) {
    wasm.round_values(start, count);
}

/** Where the samples of `window` are put, (nChannels, ...sizeOf(window)) in [0, 1].
 *
 * pixels: { start (of planar values in memory), window }
 */
export function resampled({ wasm, arena }, pixels, window, factor, kind, nChannels) {
    const sizes = sizeOf(pixels.window);
    let [from, outer, inner] = [pixels.start, nChannels, sizes.reduce((a, b) => a * b)];
    window.forEach(([start, stop], axis) => {
        inner /= sizes[axis];
        const taps = putTaps(arena, sizes[axis], pixels.window[axis][0], [start, stop], factor, KERNELS[kind]);
        const out = arena.take(Float32Array, outer * (stop - start) * inner);
        const line = arena.take(Float32Array, sizes[axis] + 64);
        wasm.resample(taps, outer, inner, from, out, line);
        [from, outer] = [out, outer * (stop - start)];
    });
    wasm.clamp_values(from, outer);
    return from;
}

function putTaps(arena, nIn, origin, [start, stop], factor, { nTaps, firstOf, weightsOf }) {
    const samples = Array.from({ length: factor }, (_, i) => start + i);
    const firsts = arena.put(Int32Array.from(samples, (sample) => firstOf(sample, factor) - origin));
    const weights = arena.put(Float32Array.from(samples.flatMap((sample) => weightsOf(sample, factor))));
    return arena.put(Int32Array.from([nIn, stop - start, factor, nTaps, firsts, weights]));
}

/** Means over 2 along each axis of planar values (channels, ...size); a last one without a partner counts twice. */
export function halved(values, size) {
    let inner = size.reduce((a, b) => a * b);
    let outer = values.length / inner;
    for (const length of size) {
        inner /= length;
        values = halvedAlong(values, outer, length, inner);
        outer *= Math.ceil(length / 2);
    }
    return values;
}

function halvedAlong(values, outer, length, inner) {
    const count = Math.ceil(length / 2);
    const out = new Float32Array(outer * count * inner);
    for (let row = 0, to = 0; row < outer * count; row++) {
        const first = Math.floor(row / count) * length + (row % count) * 2;
        const [one, other] = [first * inner, ((row % count) * 2 + 1 < length ? first + 1 : first) * inner];
        for (let i = 0; i < inner; i++, to++) out[to] = (values[one + i] + values[other + i]) / 2;
    }
    return out;
}
