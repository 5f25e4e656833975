/** What a worker of the pool does: a task at a time, one after the other. */

import { makeDecoder, rgbaOf } from "./decoder/decoder.js";
import { halved } from "./decoder/resampling.js";
import { hasAlphaIn } from "./file/header.js";
import { countOf } from "./file/windows.js";
import { surfaceOf } from "./volume/surface.js";

let decoder = null; // a promise of it
let nChannels = 0;
let hasAlpha = false;
let last = null; // the task before, a promise

/** By `kind` of a task. What they return is sent back, its arrays without a copy. */
const TASKS = {
    /** { level, chunk, data, checksum, parent, rgba } -> { values, groups, rgba } */
    async tile(task) {
        const tile = await (await decoder).tile(task);
        return task.rgba ? { ...tile, rgba: rgbaIn(tile.values, task.chunk.window) } : tile;
    },

    /** { values, size } -> { values }: means over 2 along each axis */
    async means({ values, size }) {
        return { values: halved(values, size) };
    },

    /** { pixels: { values, window, size }, factor, wanted, rgba } -> { values, rgba } */
    async enlarged({ pixels, factor, wanted, rgba }) {
        const values = (await decoder).enlarged(pixels, factor, wanted);
        return rgba ? { values, rgba: rgbaIn(values, wanted) } : { values };
    },

    /** { values, window } -> { rgba } */
    async rgba({ values, window }) {
        return { rgba: rgbaIn(values, window) };
    },

    /** { values, window, cells, threshold } -> { positions, normals, indices } */
    async surface({ values, window, cells, threshold }) {
        return surfaceOf(values, window, cells, threshold);
    },
};

function rgbaIn(values, window) {
    return rgbaOf(values, nChannels, countOf(window), hasAlpha);
}

self.onmessage = ({ data }) => {
    last = Promise.resolve(last).then(() => answer(data));
};

async function answer({ module, header, id, task }) {
    if (module) {
        decoder = makeDecoder(module, header);
        nChannels = header.n_channels;
        hasAlpha = hasAlphaIn(header);
        return;
    }
    const begin = performance.now();
    try {
        const result = await TASKS[task.kind](task);
        const buffers = Object.values(result).map((array) => array.buffer);
        self.postMessage({ id, result, seconds: (performance.now() - begin) / 1000 }, [...new Set(buffers)]);
    } catch (error) {
        self.postMessage({ id, error: error.message });
    }
}
