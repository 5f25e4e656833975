/** Windows of a level: [start, stop] along each axis, in pixels or, of what is enlarged, in samples.
 *
 * Sample i of `factor` a pixel lies at (i + 1/2) / factor - 1/2, in pixels; a pixel beyond an edge is that at the edge.
 */

export function sizeOf(window) {
    return window.map(([start, stop]) => stop - start);
}

export function countOf(window) {
    return window.reduce((count, [start, stop]) => count * (stop - start), 1);
}

/** The first of the 3 pixels that the quadratic B-spline makes a sample of. */
export function firstOfSpline(sample, factor) {
    return Math.floor(sample / factor) - 1;
}

/** The first of the 6 pixels that Lanczos' kernel makes a sample of. */
export function firstOfLanczos(sample, factor) {
    return Math.floor((2 * sample + 1 - factor) / (2 * factor)) - 2;
}

/** The pixels of the next coarser level that upsampling reads for a window, of `fill` "spline" or "lanczos".
 *
 * Networks add to the spline whatever the fill is, and Lanczos' kernel reaches over all that the spline does.
 */
export function parentWindow(window, parentSize, fill) {
    return fill === "lanczos"
        ? enlargedWindow(window, 2, parentSize)
        : reachOf(window, parentSize, (sample) => firstOfSpline(sample, 2), 3);
}

/** The pixels of a level of `size` that Lanczos' kernel reads for the samples `wanted`, a whole `factor` a pixel. */
export function enlargedWindow(wanted, factor, size) {
    return reachOf(wanted, size, (sample) => firstOfLanczos(sample, factor), 6);
}

function reachOf(window, size, firstOf, nTaps) {
    return window.map(([start, stop], axis) => {
        const last = size[axis] - 1;
        const inside = (pixel) => Math.min(Math.max(pixel, 0), last);
        return [inside(firstOf(start)), inside(firstOf(stop - 1) + nTaps - 1) + 1];
    });
}
