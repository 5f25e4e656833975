/** The file of a fit, docs/format.md: what lies before its chunks, and where these lie. */

import { crc32 } from "./crc32.js";
import { UnknownName, hasAlphaIn, parseHeader } from "./header.js";
import { inflatedUpTo } from "./inflate.js";
import { countOf } from "./windows.js";

const MAGIC = [0x89, 0x4d, 0x49, 0x4e, 0x45, 0x52, 0x0d, 0x0a];
const MAJOR = 1;
const PREFACE_BYTES = 32;
const FIRST_READ = 2 ** 16; // bytes: they hold what comes before the chunks of most files
const MOST_TEXT = 2 ** 26; // bytes of a header
const MOST_INDEX = 2 ** 26; // bytes of an index: it tells of hundreds of gigapixels
const MOST_TILE = 2 ** 25; // values of a tile: more would not fit into the memory of a page

/** Its message is for people: one line, what is wrong and what to try. */
export class FitError extends Error {}

/**
 * @param ranges of `ranges.js`
 * @returns {Promise<Fit>}
 * @throws {FitError} for a file of another kind, one that is damaged or not consistent, and one of a newer program
 */
export async function openFit(ranges) {
    const { name, size } = ranges;
    const first = await ranges.read(0, Math.min(FIRST_READ, size));
    const preface = readPreface(first, name);
    if (preface.end > size) throw cutShort(name);
    const rest = await ranges.read(Math.min(first.length, preface.end), preface.end);
    const data = new Uint8Array(preface.end);
    data.set(first.subarray(0, preface.end));
    data.set(rest, preface.end - rest.length);
    const header = data.subarray(PREFACE_BYTES, PREFACE_BYTES + preface.headerBytes);
    const index = data.subarray(PREFACE_BYTES + preface.headerBytes);
    if (crc32(header) !== preface.headerChecksum) throw damaged(name, "its header is not as it was written");
    if (crc32(index) !== preface.indexChecksum) throw damaged(name, "its index is not as it was written");
    const fit = await fitOf(ranges, header, index, preface.end);
    if (!fit.levels.get(fit.nScales - 1).isThere) throw cutShort(name);
    if (size > fit.bytes) throw damaged(name, `${size} bytes, where it has ${fit.bytes}`);
    return fit;
}

async function fitOf({ name, size }, header, index, end) {
    try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await inflatedUpTo(header, MOST_TEXT));
        return new Fit(name, size, parseHeader(text), await inflatedUpTo(index, MOST_INDEX), end);
    } catch (error) {
        if (error instanceof UnknownName) throw new FitError(`${name} needs a newer viewer: ${error.message}`);
        throw new FitError(`${name} is not consistent (${oneLine(error.message)}); pack the run again`);
    }
}

function readPreface(data, name) {
    if (data.length < MAGIC.length || MAGIC.some((byte, i) => data[i] !== byte)) {
        throw new FitError(`${name} is not a .miner file; choose one that pack.py wrote`);
    }
    if (data.length < PREFACE_BYTES) throw new FitError(`${name} is cut short; get it again`);
    const view = new DataView(data.buffer, data.byteOffset);
    if (view.getUint32(28, true) !== crc32(data.subarray(0, 28))) {
        throw damaged(name, "its first bytes are not as they were written");
    }
    const major = view.getUint16(8, true);
    if (major !== MAJOR) {
        throw new FitError(`${name} needs a newer viewer: it has format version ${major}, this one reads ${MAJOR}`);
    }
    const [headerBytes, indexBytes, headerChecksum, indexChecksum] = [12, 16, 20, 24].map((at) =>
        view.getUint32(at, true)
    );
    if (headerBytes > MOST_TEXT || indexBytes > MOST_INDEX) throw damaged(name, "its beginning has no end");
    return { headerChecksum, indexChecksum, headerBytes, end: PREFACE_BYTES + headerBytes + indexBytes };
}

/** The error of a file whose bytes are not those that were written. */
export function damaged(name, reason) {
    return new FitError(`${name} is damaged (${reason}); get it again`);
}

function cutShort(name) {
    return new FitError(`${name} is cut short before its coarsest level ends; get the rest of it`);
}

function oneLine(text) {
    return text.replaceAll(/\s+/g, " ").slice(0, 200);
}

/**
 * A fit whose beginning was read.
 *
 * name: of its file; bytes: of the file, as it should be
 * header: as it is in the file; nScales, nChannels: of it; hasAlpha: whether the fourth channel is alpha
 * size: of level 0, [h, w] or [d, h, w]
 * levels: a Map from indices to `FitLevel`, the coarsest first
 * finest: the finest level that is there whole; of a file that is cut short the coarser ones can be shown
 * overview: null, or { tile, pictures: [{ size: [h, w], tiles: [rows, columns], first }] }, coarse to fine: the tiles
 *     of a picture are numbered in C order from `first` on
 */
class Fit {
    #starts;
    #checksums;

    constructor(name, fileSize, header, index, start) {
        const { size, n_scales: nScales, n_channels: nChannels } = header;
        Object.assign(this, { name, header, size, nScales, nChannels, hasAlpha: hasAlphaIn(header) });
        this.levels = new Map(header.levels.map((entry) => [entry.level, new FitLevel(entry, header.chunk)]));
        const levels = [...this.levels.values()];
        const pictures = picturesOf(header.overview);
        const nChunks = sumOf(levels, (level) => countIn(level.chunks));
        const nTiles = sumOf(pictures, (picture) => countIn(picture.tiles));
        const bitmapBytes = sumOf(levels, (level) => Math.ceil(countIn(level.grid) / 8));
        const n = nChunks + nTiles;
        if (index.length !== bitmapBytes + 8 * n) throw new Error(`an index of ${index.length} bytes`);
        const lengths = fromPlanes(index.subarray(bitmapBytes, bitmapBytes + 4 * n));
        const checksums = fromPlanes(index.subarray(bitmapBytes + 4 * n));
        this.#starts = startsOf(lengths.subarray(nChunks), start);
        this.#checksums = checksums.subarray(nChunks);
        const starts = startsOf(lengths.subarray(0, nChunks), this.#starts[nTiles]);
        this.bytes = starts[nChunks];
        let [firstByte, firstChunk] = [0, 0];
        for (const level of levels) {
            const [bytes, count] = [Math.ceil(countIn(level.grid) / 8), countIn(level.chunks)];
            level.bitmap = index.subarray(firstByte, firstByte + bytes);
            level.starts = starts.subarray(firstChunk, firstChunk + count + 1);
            level.checksums = checksums.subarray(firstChunk, firstChunk + count);
            level.isThere = level.starts[count] <= fileSize;
            level.check();
            firstByte += bytes;
            firstChunk += count;
        }
        this.finest = Math.min(...levels.filter((level) => level.isThere).map((level) => level.index));
        const isKnown = header.overview?.format === "webp";
        this.overview = isKnown ? { tile: header.overview.tile, pictures } : null;
        const most = Math.max(...levels.map((level) => countIn(level.tileSize))) * this.nChannels;
        if (most > MOST_TILE) throw new Error("chunks that are too large to be shown");
    }

    /** Where a tile of the overview lies; they are numbered over all its pictures. */
    overviewTile(number) {
        return { start: this.#starts[number], stop: this.#starts[number + 1], checksum: this.#checksums[number] };
    }
}

/**
 * What the beginning of a file says of a level. A *tile* of it is the pixels of one chunk.
 *
 * index: 0 is the finest; size: in pixels; patch: pixels of a block; grid: of blocks
 * chunk: blocks of a chunk along each axis; chunks: the grid of chunks; tileSize: pixels of a chunk
 * entry: of the level in the header; fill, residual, isWhole: of it
 * isThere: whether the file holds all its chunks
 */
class FitLevel {
    constructor(entry, chunk) {
        const { level: index, size, patch_size: patch, is_whole: isWhole, fill, residual } = entry;
        const grid = dividedUp(size, patch);
        const chunks = dividedUp(grid, chunk);
        const tileSize = chunk.map((length, axis) => Math.min(length * patch[axis], size[axis]));
        Object.assign(this, { index, size, patch, grid, chunk, chunks, tileSize, entry, isWhole, fill, residual });
    }

    /** Whether a block of the grid, numbered in C order, has a network. */
    isActive(number) {
        return ((this.bitmap[number >> 3] >> (7 - (number & 7))) & 1) === 1;
    }

    get nActive() {
        return this.entry.blocks_by_group.reduce((sum, count) => sum + count, 0);
    }

    /**
     * A chunk by its number.
     *
     * @returns { number, blocks: window of the grid, window: in pixels, inside the level, active: Uint8Array, 0 or 1
     *     for each of its blocks in C order, nActive, start, stop: in the file, checksum }
     */
    chunkOf(number) {
        const blocks = unravelled(number, this.chunks).map((at, axis) => [
            at * this.chunk[axis],
            Math.min((at + 1) * this.chunk[axis], this.grid[axis]),
        ]);
        const window = blocks.map(([start, stop], axis) => [
            start * this.patch[axis],
            Math.min(stop * this.patch[axis], this.size[axis]),
        ]);
        const active = new Uint8Array(countOf(blocks));
        let i = 0;
        for (const block of numbersIn(blocks, this.grid)) active[i++] = this.isActive(block) ? 1 : 0;
        const nActive = active.reduce((sum, one) => sum + one, 0);
        const [start, stop] = this.starts.subarray(number, number + 2);
        return { number, blocks, window, active, nActive, start, stop, checksum: this.checksums[number] };
    }

    /** The numbers of the tiles that a window of pixels touches, ascending; of pixels beyond an edge, those at it. */
    tilesIn(window) {
        const tiles = window.map(([start, stop], axis) => {
            const tile = this.chunk[axis] * this.patch[axis];
            const at = (pixel) => Math.floor(Math.min(Math.max(pixel, 0), this.size[axis] - 1) / tile);
            return [at(start), at(stop - 1) + 1];
        });
        return [...numbersIn(tiles, this.chunks)];
    }

    /** The chunk in which a block lies, and its number among the blocks of that which have a network. */
    placeOf(block) {
        const place = unravelled(block, this.grid).map((at, axis) => Math.floor(at / this.chunk[axis]));
        const number = place.reduce((before, at, axis) => before * this.chunks[axis] + at, 0);
        let rank = 0;
        for (const other of numbersIn(this.chunkOf(number).blocks, this.grid)) {
            if (other === block) break;
            if (this.isActive(other)) rank++;
        }
        return { number, rank };
    }

    /** Error if the bitmap and the header, or the bitmap and the chunks disagree. */
    check() {
        const counts = this.#countsByChunk();
        const nActive = counts.reduce((sum, count) => sum + count, 0);
        if (nActive !== this.nActive) throw new Error(`${this.nActive} blocks, where ${nActive} have a network`);
        if (counts.some((count, i) => count > 0 !== this.starts[i + 1] > this.starts[i])) {
            throw new Error("chunks without a block, or blocks without a chunk");
        }
    }

    /** How many blocks of each chunk have a network; of millions of blocks, so by plain loops. */
    #countsByChunk() {
        const counts = new Uint32Array(countIn(this.chunks));
        const [grid, chunk, chunks] = [this.grid, this.chunk, this.chunks].map((lengths) => [1, ...lengths].slice(-3));
        let block = 0;
        for (let z = 0; z < grid[0]; z++) {
            for (let y = 0; y < grid[1]; y++) {
                const first = (Math.floor(z / chunk[0]) * chunks[1] + Math.floor(y / chunk[1])) * chunks[2];
                for (let x = 0; x < grid[2]; x++) {
                    if (this.isActive(block++)) counts[first + Math.floor(x / chunk[2])]++;
                }
            }
        }
        return counts;
    }
}

function picturesOf(overview) {
    let first = 0;
    return (overview?.pictures ?? []).map((size) => {
        const tiles = dividedUp(size, [overview.tile, overview.tile]);
        first += countIn(tiles);
        return { size, tiles, first: first - countIn(tiles) };
    });
}

/** Numbers of 4 bytes from byte planes: all lowest bytes, then all second ones, and so on. */
function fromPlanes(data) {
    const n = data.length / 4;
    return Uint32Array.from(
        { length: n },
        (_, i) => (data[i] | (data[n + i] << 8) | (data[2 * n + i] << 16) | (data[3 * n + i] << 24)) >>> 0
    );
}

/** Where things of some lengths begin that follow each other, and where the last one ends. */
function startsOf(lengths, start) {
    const starts = new Float64Array(lengths.length + 1).fill(start);
    lengths.forEach((length, i) => (starts[i + 1] = starts[i] + length));
    return starts;
}

function dividedUp(size, parts) {
    return size.map((length, axis) => Math.ceil(length / parts[axis]));
}

function countIn(size) {
    return size.reduce((count, length) => count * length, 1);
}

function sumOf(items, value) {
    return items.reduce((sum, item) => sum + value(item), 0);
}

/** Where along each axis an element lies, by its number in C order. */
function unravelled(number, shape) {
    const place = [];
    for (const length of [...shape].reverse()) {
        place.unshift(number % length);
        number = Math.floor(number / length);
    }
    return place;
}

/** The numbers in C order of the elements of a window. */
function* numbersIn(window, shape, first = 0) {
    const [[start, stop], ...rest] = window;
    for (let at = start; at < stop; at++) {
        const number = first * shape[0] + at;
        if (rest.length) yield* numbersIn(rest, shape.slice(1), number);
        else yield number;
    }
}
