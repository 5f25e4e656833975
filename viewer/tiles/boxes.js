/** Values of windows put together and cut: planar, (c, ...size of the window) in C order. */

import { countOf, sizeOf } from "../file/windows.js";

/** The values of a window that lies within another. */
export function cropped(values, window, wanted, nChannels) {
    const out = { values: new Float32Array(nChannels * countOf(wanted)), window: wanted };
    copyBox({ values, window }, out, wanted, nChannels);
    return out.values;
}

/**
 * The values of a window, from parts that together hold what of it lies inside the signal; what lies beyond an edge is
 * the pixel at the edge.
 *
 * @param parts [{ values, window }, ...]
 * @param size of the signal
 */
export function assembled(parts, window, size, nChannels) {
    const inside = clampedWindow(window, size);
    const whole = { values: new Float32Array(nChannels * countOf(inside)), window: inside };
    for (const part of parts) copyBox(part, whole, sharedWindow(part.window, inside), nChannels);
    return isSameWindow(inside, window) ? whole.values : extended(whole, window, nChannels);
}

/** The window of the pixels that a window is made of, if those beyond an edge are the pixel at the edge. */
export function clampedWindow(window, size) {
    return window.map(([start, stop], axis) => {
        const clamped = (pixel) => Math.min(Math.max(pixel, 0), size[axis] - 1);
        return [clamped(start), clamped(stop - 1) + 1];
    });
}

export function isSameWindow(one, other) {
    return one.every(([start, stop], axis) => start === other[axis][0] && stop === other[axis][1]);
}

function sharedWindow(one, other) {
    return one.map(([start, stop], axis) => {
        const first = Math.max(start, other[axis][0]);
        return [first, Math.max(first, Math.min(stop, other[axis][1]))];
    });
}

/** Copies the values of a box from { values, window } to others like it, both of which hold it. */
export function copyBox(from, to, box, nChannels) {
    const [[z0, z1], [y0, y1], [x0, x1]] = threeAxes(box);
    const [fromAt, toAt] = [from, to].map(({ window }) => placesIn(threeAxes(window)));
    for (let c = 0; c < nChannels; c++) {
        for (let z = z0; z < z1; z++) {
            for (let y = y0; y < y1; y++) {
                const start = fromAt(c, z, y, x0);
                to.values.set(from.values.subarray(start, start + x1 - x0), toAt(c, z, y, x0));
            }
        }
    }
}

function extended(whole, window, nChannels) {
    const out = new Float32Array(nChannels * countOf(window));
    const [inside, wanted] = [threeAxes(whole.window), threeAxes(window)];
    const from = placesIn(inside);
    const [zs, ys, xs] = wanted.map(([start, stop], axis) => {
        const [first, end] = inside[axis];
        return Array.from({ length: stop - start }, (_, i) => Math.min(Math.max(start + i, first), end - 1));
    });
    let at = 0;
    for (let c = 0; c < nChannels; c++) {
        for (const z of zs) {
            for (const y of ys) {
                const row = from(c, z, y, 0);
                for (const x of xs) out[at++] = whole.values[row + x];
            }
        }
    }
    return out;
}

/** Where the value of a channel and a pixel lies among those of a window. */
function placesIn(window) {
    const [depth, height, width] = sizeOf(window);
    const [[z0], [y0], [x0]] = window;
    return (c, z, y, x) => ((c * depth + z - z0) * height + y - y0) * width + x - x0;
}

function threeAxes(window) {
    return window.length === 3 ? window : [[0, 1], ...window];
}
