/** What is known of the coefficients of cosines before they are read, as coefficients.c takes it; docs/format.md says why. */

const UNIT = 64;
const MOST_BAND = 8;

/** Of a part of `n` coefficients along each of `nAxes` axes, of which a block has `nParts`: a list of integers. */
export function contextsOf(n, nAxes, nParts) {
    const offsets = offsetsOf(nAxes);
    const count = n ** nAxes;
    const [bands, first, after, weight] = [[], [0], [], []];
    for (let number = 0; number < count; number++) {
        const place = Array.from({ length: nAxes }, (_, axis) => Math.floor(number / n ** (nAxes - 1 - axis)) % n);
        bands.push(bandOf(place, n));
        for (const { offset, counts } of offsets) {
            const other = place.map((frequency, axis) => frequency + offset[axis]);
            if (other.some((frequency) => frequency < 0 || frequency >= n)) continue;
            after.push(other.reduce((before, frequency) => before * n + frequency, 0));
            weight.push(counts);
        }
        first.push(after.length);
    }
    return [nParts, count].concat(bands, first, after, weight);
}

function bandOf(place, n) {
    if (place.every((frequency) => frequency === 0)) return 0;
    const squared = place.reduce((sum, frequency) => sum + Math.floor((UNIT * frequency) / n) ** 2, 0);
    return 1 + Math.min(Math.max(Math.floor((quartersOf(Math.max(squared, 1)) - 4) / 3), 0), MOST_BAND - 1);
}

/** floor(2 log2 n) of a small n >= 1, by integers. */
function quartersOf(n) {
    const high = 31 - Math.clz32(n);
    return 2 * high + (n * 2 ** (15 - high) >= 46341 ? 1 : 0);
}

/** Where those lie whose activity a coefficient tells, and how much it counts. */
function offsetsOf(nAxes) {
    const axes = [...Array(nAxes).keys()];
    const offset = (steps) => axes.map((axis) => steps[axis] ?? 0);
    const along = axes.flatMap((axis) => [1, 2].map((step) => ({ offset: offset({ [axis]: step }), counts: 3 - step })));
    const across = axes.flatMap((one) => axes.slice(one + 1).flatMap((other) =>
        [-1, 1].map((sign) => ({ offset: offset({ [one]: 1, [other]: sign }), counts: 1 }))));
    return along.concat(across);
}
