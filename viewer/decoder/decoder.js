/** Tiles of the levels of a fit, evaluated by WebAssembly; docs/format.md says what they are. */

import { chunkChecksum } from "../file/crc32.js";
import { inflatedUpTo } from "../file/inflate.js";
import { countOf, enlargedWindow, parentWindow, sizeOf } from "../file/windows.js";
import { Arena, MOST_ARENA } from "./arena.js";
import { cosinesOf, integersOf, shapesOf } from "./codings.js";
import { positionsOf } from "./positions.js";
import { resampled, roundToSteps } from "./resampling.js";

const FEW_INTEGERS = 2 ** 22;
const INTEGERS_OF_BYTE = 2 ** 15; // at most: many take next to nothing

/** Of the WebAssembly (bytes or a compiled module) and the header of a file. */
export async function makeDecoder(wasm, header) {
    const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
    const { exports } = await WebAssembly.instantiate(module);
    exports.start();
    return new Decoder(exports, header);
}

class Decoder {
    constructor(wasm, header) {
        this.wasm = wasm;
        this.arena = new Arena(wasm);
        this.nChannels = header.n_channels;
        this.entries = new Map(header.levels.map((entry) => [entry.level, entry]));
        this.ready = new Map();
    }

    /** The pixels of the next coarser level that a tile of `window` is made of, or null at the coarsest. */
    parentWindow(level, window) {
        const parent = this.entries.get(level + 1);
        return parent ? parentWindow(window, parent.size, this.entries.get(level).fill) : null;
    }

    /** The pixels of one chunk of a level, and the group of each block that has a network.
     *
     * chunk: { number, window (of its pixels), blocks (window of the grid), active (0 or 1 of each of these) }
     * data, checksum: of the chunk; null where no block is active
     * parent: { values, window } of the coarser level, as `tile` gave them, at least `parentWindow`; null at the
     * coarsest
     * Gives { values: Float32Array (channels, ...sizeOf(window)) in [0, 1], groups: Int8Array }; an Error in words if
     * the chunk is damaged.
     */
    async tile({ level, chunk, data, checksum, parent }) {
        const nActive = chunk.active.reduce((count, active) => count + active, 0);
        if (!nActive) {
            const values = this.arena.within(() => this.#valuesAt(this.#upsampled(level, chunk, 0, parent).out, chunk));
            return { values, groups: new Int8Array(0) };
        }
        if (data === null || chunkChecksum(level, chunk.number, data) !== checksum) {
            throw damagedChunk(level, chunk.number);
        }
        const here = this.#readied(level);
        const unpacked = here.coding ? data : await this.#inflated(here, level, chunk.number, data, nActive);
        return this.arena.within(() => {
            const read = this.#read(here, unpacked, nActive);
            if (!read) throw damagedChunk(level, chunk.number);
            const { base, out } = this.#upsampled(level, chunk, nActive, parent);
            if (!this.#refine(here, chunk, read, base, out)) throw damagedChunk(level, chunk.number);
            return { values: this.#valuesAt(out, chunk), groups: read.groups };
        });
    }

    /** Samples of a picture, `factor` a pixel along each axis, by Lanczos' kernel.
     *
     * values, window: of pixels, at least `enlargedWindow`; size: of the level; wanted: window of samples
     */
    enlarged({ values, window, size }, factor, wanted) {
        checkInside(enlargedWindow(wanted, factor, size), window);
        return this.arena.within(() => {
            const pixels = { start: this.arena.put(values), window };
            const out = resampled(this, pixels, wanted, factor, "lanczos", this.nChannels);
            return this.arena.view(Float32Array, out, this.nChannels * countOf(wanted)).slice();
        });
    }

    /** A level's structures in the memory of the WebAssembly, made when they are first needed. */
    #readied(level) {
        if (!this.ready.has(level)) {
            const { top } = this.arena;
            try {
                this.ready.set(level, this.#readyLevel(this.entries.get(level)));
            } catch (error) {
                this.arena.top = top;
                throw error;
            }
        }
        return this.ready.get(level);
    }

    /** The words are those of Level in decoder.c. */
    #readyLevel(entry) {
        const shapes = shapesOf(entry);
        const coding = integersOf(entry, shapes);
        const at = positionsOf(entry.patch_size, entry.frequencies);
        const { arena } = this;
        const [depth, height, width] = alongThree(entry.patch_size);
        const words = [
            shapes[0].nIn, this.nChannels, depth, height, width, at.width, at.nRows,
            at.rowInputs.length, arena.put(at.rowInputs), arena.put(at.rowTargets), arena.put(at.rowFactors),
            at.columnInputs.length, arena.put(at.columnInputs), arena.put(at.columnFactors),
            at.nMixed, arena.put(at.mixed),
            Number(entry.residual), this.#putShapes(shapes), coding?.kind ?? 0, coding?.hasAmplitude ?? 0,
        ];
        const tables = ["steps", "rotation", "floors", "model"].map((name) => (coding ? arena.put(coding[name]) : 0));
        words.push(...tables, coding?.nTensors ?? 0);
        const start = arena.put(Int32Array.from(words));
        const largest = (count) => Math.max(...shapes.map((_, group) => count(start, group)));
        return {
            shapes,
            coding,
            start,
            mostFloats: largest(this.wasm.floats_of_network),
            mostNumbers: largest(this.wasm.numbers_of_network),
            mostIntegers: coding ? largest(this.wasm.integers_of_network) : 0,
        };
    }

    #putShapes(shapes) {
        const words = new Int32Array(8 * shapes.length);
        const floats = new Float32Array(words.buffer);
        shapes.forEach((shape, group) => {
            const { kind, hasSines, nLayers, nHidden, output, omega, centre } = shape;
            words.set([kind, nLayers, nHidden, output, Number(hasSines)], 8 * group);
            floats.set([omega, centre], 8 * group + 5);
            words[8 * group + 7] = this.arena.put(cosinesOf(shape));
        });
        return this.arena.put(words);
    }

    /** The bytes of a float32 chunk, of the length that the groups of its blocks make. */
    async #inflated(here, level, number, data, nActive) {
        const most = Math.min(nActive * (1 + 4 * here.mostNumbers), MOST_ARENA);
        const bytes = await inflatedUpTo(data, most).catch(() => null);
        const groups = bytes?.subarray(0, nActive) ?? [];
        if (groups.length < nActive || groups.some((group) => group >= here.shapes.length)) {
            throw damagedChunk(level, number);
        }
        const counts = here.shapes.map((_, group) => this.wasm.numbers_of_network(here.start, group));
        const total = groups.reduce((sum, group) => sum + counts[group], 0);
        if (bytes.length !== nActive + 4 * total) throw damagedChunk(level, number);
        return bytes;
    }

    /** The groups of the blocks, and where their integers or planes of numbers are; null if the chunk is damaged. */
    #read(here, data, nActive) {
        const { arena } = this;
        const groupsAt = arena.take(Int32Array, nActive);
        if (!here.coding) {
            const groups = new Int8Array(data.subarray(0, nActive));
            arena.view(Int32Array, groupsAt, nActive).set(groups);
            const planes = arena.put(data.subarray(nActive));
            return { groups, groupsAt, integers: 0, planes, n: (data.length - nActive) / 4 };
        }
        const most = nActive * here.mostIntegers;
        if (most > FEW_INTEGERS + INTEGERS_OF_BYTE * data.length) return null;
        const integers = arena.take(Int32Array, most);
        const bytes = arena.put(data);
        if (!this.wasm.read_integers(here.start, bytes, data.length, nActive, groupsAt, integers)) return null;
        const groups = Int8Array.from(arena.view(Int32Array, groupsAt, nActive));
        return { groups, groupsAt, integers, planes: 0, n: 0 };
    }

    /** Where the values are that networks add to, and those that are shown where there is none: 0 at the coarsest. */
    #upsampled(level, chunk, nActive, parent) {
        const { fill, residual } = this.entries.get(level);
        const count = this.nChannels * countOf(chunk.window);
        if (!this.entries.has(level + 1)) {
            const out = this.arena.take(Float32Array, count);
            this.arena.view(Float32Array, out, count).fill(0);
            return { base: out, out };
        }
        checkInside(this.parentWindow(level, chunk.window), parent.window);
        const pixels = { start: this.arena.put(parent.values), window: parent.window };
        roundToSteps(this, pixels.start, parent.values.length);
        const made = (kind) => resampled(this, pixels, chunk.window, 2, kind, this.nChannels);
        if (fill === "spline" || nActive === chunk.active.length) {
            const out = made("spline");
            return { base: out, out };
        }
        const out = made(fill);
        return { base: nActive && residual ? made("spline") : out, out };
    }

    /** A copy of the values of a tile. */
    #valuesAt(start, { window }) {
        return this.arena.view(Float32Array, start, this.nChannels * countOf(window)).slice();
    }

    #refine(here, chunk, { groupsAt, integers, planes, n }, base, out) {
        const { arena } = this;
        const active = arena.put(Uint8Array.from(chunk.active));
        const [size, blocks] = [chunk.window, chunk.blocks].map((window) => alongThree(sizeOf(window)));
        const tile = arena.put(Int32Array.from([...size, ...blocks, active, base, out]));
        const numbers = arena.take(Float32Array, here.mostNumbers);
        const work = arena.take(Float32Array, here.mostFloats);
        return this.wasm.refine(here.start, tile, groupsAt, integers, planes, n, numbers, work) === 1;
    }
}

/** A picture as a volume of one plane. */
function alongThree(lengths) {
    return lengths.length === 3 ? lengths : [1, ...lengths];
}

function checkInside(window, given) {
    if (window.some(([start, stop], axis) => start < given[axis][0] || stop > given[axis][1])) {
        throw new Error(`pixels ${JSON.stringify(given)} where ${JSON.stringify(window)} are needed`);
    }
}

function damagedChunk(level, number) {
    return new Error(`chunk ${number} of level ${level} is damaged; get the file again`);
}

/** 8 bits of planar values in [0, 1]: the first three channels, fewer are grey; opaque, unless the fourth is alpha. */
export function rgbaOf(values, nChannels, nPixels, hasAlpha = false) {
    const rgba = new Uint8ClampedArray(4 * nPixels).fill(255);
    for (let channel = 0; channel < (hasAlpha ? 4 : 3); channel++) {
        const plane = values.subarray(nChannels < 3 ? 0 : channel * nPixels);
        for (let i = 0, at = channel; i < nPixels; i++, at += 4) rgba[at] = 255 * plane[i];
    }
    return rgba;
}
