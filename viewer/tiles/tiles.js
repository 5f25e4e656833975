/** The tiles of a fit, made by workers as they are wanted. */

import { chunkChecksum } from "../file/crc32.js";
import { FitError, damaged } from "../file/format.js";
import { countOf, sizeOf } from "../file/windows.js";
import { assembled, cropped, isSameWindow } from "./boxes.js";
import { Kept } from "./kept.js";
import { enlargedRecipe, keyOf, shownKind, tileRecipe, windowRecipe } from "./recipes.js";

const KEPT_TILES = 192 * 2 ** 20; // bytes
const KEPT_CHUNKS = 32 * 2 ** 20;
const AHEAD = 64; // jobs to look at, beyond those that run: the chunks that they need are fetched meanwhile
const AHEAD_BYTES = 8 * 2 ** 20;
const OVERVIEW_LEVEL = 2 ** 32 - 1; // in the checksums of its tiles

/**
 * Makes tiles, each once for all who ask at the same time, and keeps them up to a bound.
 *
 * A job is a tile to be made. Those that someone asked for are the roots; what a job needs, its own tiles before it,
 * becomes a job when its turn comes. Turns follow the order of a search depth first, so a mean is finished before the
 * next one is begun, and few tiles wait for others.
 *
 * Options: { priority: a lower one comes first, signal: AbortSignal, rgba: whether the tile is to have it }.
 * A tile: { level, number, window, size, values, rgba }, its values a Float32Array (c, ...size) that is not to be
 * changed, rgba a Uint8ClampedArray.
 */
export class Tiles {
    #tiles;
    #chunks = new Kept(KEPT_CHUNKS);
    #roots = new Map(); // key -> { recipe, asks: Set }
    #jobs = new Map(); // key -> { ...recipe, keys, data, fetch: AbortController, isRunning }
    #groups = new Map(); // key of a raw tile -> Int8Array
    #isAwake = false;
    #hasLost = false; // whether a root was given up, and jobs with it
    #counts = { megapixels: 0, decoded: 0, failed: 0 };

    /** @param bytes of the tiles that are kept */
    constructor(fit, ranges, pool, { bytes = KEPT_TILES } = {}) {
        Object.assign(this, { fit, ranges, pool });
        this.#tiles = new Kept(bytes);
        pool.onRoom = () => this.#wake();
    }

    /** A tile of a level as finer levels build on it. */
    raw(level, number, options) {
        return this.#ask(tileRecipe(this.fit, "raw", level, number), options);
    }

    /** A tile of a level as it is to be seen. */
    shown(level, number, options) {
        return this.#ask(tileRecipe(this.fit, shownKind(this.fit, level), level, number), options);
    }

    /**
     * A tile of samples of the finest level, a whole `factor` a pixel; its window is in samples.
     *
     * @param place [row, column] of the tile
     * @param tileSize samples of a tile along each axis
     */
    enlarged(factor, place, tileSize, options) {
        return this.#ask(enlargedRecipe(this.fit, factor, place, tileSize), options);
    }

    /**
     * A window of a level, put together; what lies beyond an edge is the pixel at the edge.
     *
     * @param kind "raw" or "shown"
     * @param window [[start, stop], ...] in pixels
     * @returns {Promise<Float32Array>} (c, ...size of the window), the caller's own
     */
    async window(kind, level, window, options) {
        const made = kind === "raw" ? "raw" : shownKind(this.fit, level);
        return (await this.#ask(windowRecipe(this.fit, made, level, window), options)).values;
    }

    /** A tile of a picture of the overview, by their numbers. */
    async overview(picture, number, { signal } = {}) {
        const { fit, ranges } = this;
        const index = fit.overview.pictures[picture].first + number;
        const { start, stop, checksum } = fit.overviewTile(index);
        const data = await ranges.read(start, stop, signal);
        if (chunkChecksum(OVERVIEW_LEVEL, index, data) !== checksum) {
            throw damaged(fit.name, `tile ${index} of its overview is not as it was written`);
        }
        return createImageBitmap(new Blob([data], { type: "image/webp" }));
    }

    /** The shape of the network of a block, of the header; null where there is none, or it was not read yet. */
    shapeOf(level, block) {
        const { entry } = this.fit.levels.get(level);
        if (!this.fit.levels.get(level).isActive(block)) return null;
        if (entry.networks.length === 1) return entry.networks[0];
        const { number, rank } = this.fit.levels.get(level).placeOf(block);
        return entry.networks[this.#groups.get(keyOf("raw", level, number))?.[rank]] ?? null;
    }

    /**
     * megapixels: of the tiles that workers made, within `seconds` of all of them together; decoded: how many these
     * are; cached: how many are kept, of so many `bytes`; waiting: tiles that were asked for; failed: those that could
     * not be had
     */
    get stats() {
        const { count: cached, bytes } = this.#tiles;
        return { ...this.#counts, seconds: this.pool.seconds, cached, bytes, waiting: this.#roots.size };
    }

    #ask(recipe, { priority = 0, signal = null, rgba = false } = {}) {
        return new Promise((resolve, reject) => {
            signal?.throwIfAborted();
            const root = this.#roots.get(recipe.key) ?? { recipe, asks: new Set() };
            const ask = { priority, rgba };
            const abort = () => {
                root.asks.delete(ask);
                if (root.asks.size === 0) this.#lose(recipe.key, root);
                reject(signal.reason);
            };
            ask.settle = (finish, value) => {
                signal?.removeEventListener("abort", abort);
                finish(value);
            };
            Object.assign(ask, { resolve, reject });
            signal?.addEventListener("abort", abort);
            root.asks.add(ask);
            this.#roots.set(recipe.key, root);
            if (this.#tiles.has(recipe.key)) this.#finish(recipe.key, this.#tiles.get(recipe.key));
            else this.#wake();
        });
    }

    #lose(key, root) {
        if (this.#roots.get(key) === root) this.#roots.delete(key);
        this.#hasLost = true;
        this.#wake();
    }

    /** What follows from what happens in the same moment is done at once. */
    #wake() {
        if (this.#isAwake) return;
        this.#isAwake = true;
        queueMicrotask(() => {
            this.#isAwake = false;
            if (this.#hasLost) this.#dropUnwanted();
            this.#advance();
        });
    }

    /** Drops the jobs that no root needs any more; those that a worker has are let run. */
    #dropUnwanted() {
        this.#hasLost = false;
        const wanted = new Set();
        const mark = (key) => {
            if (wanted.has(key)) return;
            wanted.add(key);
            this.#jobs.get(key)?.keys.forEach(mark);
        };
        for (const key of this.#roots.keys()) mark(key);
        for (const [key, job] of this.#jobs) {
            if (wanted.has(key) || job.isRunning) continue;
            job.fetch?.abort();
            this.#jobs.delete(key);
        }
    }

    /**
     * Gives the next jobs to workers, and fetches the chunks of those that follow: of all of them as soon as one of the
     * nearer half lacks its own, so that many are read together.
     */
    #advance() {
        let [room, ahead, bytes] = [this.pool.room, AHEAD, AHEAD_BYTES];
        let isShort = false;
        const unread = [];
        for (const job of this.#unfinished()) {
            if (ahead <= 0 || bytes <= 0) break;
            if (job.isRunning) continue;
            const isNear = ahead > AHEAD / 2 && bytes > AHEAD_BYTES / 2;
            ahead--;
            if (job.chunk?.nActive) bytes -= job.chunk.stop - job.chunk.start;
            if (job.chunk?.nActive && !job.data) {
                if (job.fetch) continue;
                unread.push(job);
                isShort ||= isNear;
            } else if (room > 0 && job.keys.every((key) => this.#tiles.has(key))) {
                room--;
                this.#run(job);
            }
        }
        if (isShort) for (const job of unread) this.#fetch(job);
    }

    /** The jobs in the order of their turns, each after those that it needs. */
    *#unfinished() {
        const seen = new Set();
        for (const { recipe } of this.#rootsInOrder()) yield* this.#below(recipe.key, () => recipe, seen);
    }

    *#below(key, recipeOf, seen) {
        if (seen.has(key) || this.#tiles.has(key)) return;
        seen.add(key);
        const job = this.#jobs.get(key) ?? this.#newJob(recipeOf());
        if (!job.isRunning) {
            for (const [i, need] of job.needs.entries()) {
                yield* this.#below(job.keys[i], () => tileRecipe(this.fit, ...need), seen);
            }
        }
        yield job;
    }

    #newJob(recipe) {
        const keys = recipe.needs.map((need) => keyOf(...need));
        const job = { ...recipe, keys, data: this.#chunks.get(recipe.key) ?? null, fetch: null, isRunning: false };
        this.#jobs.set(recipe.key, job);
        return job;
    }

    /** The coarsest level comes first, whoever asks for it. */
    #rootsInOrder() {
        const coarsest = this.fit.nScales - 1;
        const rank = ({ recipe, asks }) =>
            recipe.level === coarsest ? -Infinity : Math.min(...[...asks].map(({ priority }) => priority));
        const ranked = [...this.#roots.values()].map((root) => [rank(root), root]);
        return ranked.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0)).map(([, root]) => root);
    }

    async #fetch(job) {
        job.fetch = new AbortController();
        const { start, stop } = job.chunk;
        try {
            if (stop > this.ranges.size) {
                const { name } = this.fit;
                throw new FitError(`${name} is cut short before this part of level ${job.level}; get the rest of it`);
            }
            job.data = await this.ranges.read(start, stop, job.fetch.signal);
            this.#chunks.add(job.key, job.data, job.data.length);
        } catch (error) {
            if (!job.fetch.signal.aborted) this.#fail(job.key, error);
        }
        this.#wake();
    }

    async #run(job) {
        job.isRunning = true;
        const root = this.#roots.get(job.key);
        const wantsRgba = [...(root?.asks ?? [])].some(({ rgba }) => rgba);
        try {
            const { values, groups, rgba } =
                job.kind === "window" ? { values: this.#source(job) } : await this.#made(job, wantsRgba);
            if (groups) this.#groups.set(job.key, groups);
            this.#jobs.delete(job.key);
            const tile = { level: job.level, number: job.number, window: job.window, shown: job.shown, values };
            if (job.kind !== "window") {
                this.#tiles.add(job.key, tile, values.byteLength, this.#isNeeded());
            }
            this.#finish(job.key, tile, rgba);
        } catch (error) {
            this.#fail(job.key, new FitError(`${this.fit.name}: ${error.message}`));
        }
        this.#wake();
    }

    /** A test whether a job that has begun needs a tile. */
    #isNeeded() {
        let needed = null; // as long as all tiles have room, nobody asks
        return (key) => (needed ??= new Set([...this.#jobs.values()].flatMap(({ keys }) => keys))).has(key);
    }

    async #made(job, rgba) {
        const values = job.source && this.#source(job);
        const transfer = values ? [values.buffer] : [];
        const made = await this.pool.run(this.#task(job, values, rgba), { priority: -1, transfer });
        this.#counts.decoded++;
        this.#counts.megapixels += countOf(job.window) / 1e6;
        return made;
    }

    #task({ kind, level, chunk, data, source, factor, window }, values, rgba) {
        if (kind === "means") return { kind, values, size: sizeOf(source.window) };
        if (kind === "enlarged") return { kind, pixels: { values, ...source }, factor, wanted: window, rgba };
        const { checksum, ...rest } = chunk;
        const parent = source && { values, window: source.window };
        return { kind: "tile", level, chunk: rest, data, checksum, parent, rgba };
    }

    /** The values that a job is made from. */
    #source({ keys, source }) {
        const parts = keys.map((key) => this.#tiles.get(key));
        return assembled(parts, source.window, source.size, this.fit.nChannels);
    }

    /** Gives a tile to all who asked for it. */
    #finish(key, tile, rgba = null) {
        const root = this.#roots.get(key);
        if (!root) return;
        this.#roots.delete(key);
        for (const ask of root.asks) {
            this.#delivered(tile, ask.rgba, rgba).then(
                (delivered) => ask.settle(ask.resolve, delivered),
                (error) => ask.settle(ask.reject, error)
            );
        }
    }

    async #delivered({ level, number, window, shown, values }, wantsRgba, rgba) {
        const isAll = isSameWindow(window, shown);
        const tile = { level, number, window: shown, size: sizeOf(shown) };
        tile.values = isAll ? values : cropped(values, window, shown, this.fit.nChannels);
        if (wantsRgba) tile.rgba = rgba ?? (await this.#rgba(tile));
        return tile;
    }

    async #rgba({ values, window }) {
        const task = { kind: "rgba", values: values.slice(), window };
        return (await this.pool.run(task, { priority: -2, transfer: [task.values.buffer] })).rgba;
    }

    /** Tells all who wait for a tile why there is none. */
    #fail(key, error) {
        this.#jobs.get(key)?.fetch?.abort();
        this.#jobs.delete(key);
        this.#chunks.drop(key); // which may be damaged: it is read again if it is asked for again
        const root = this.#roots.get(key);
        this.#roots.delete(key);
        for (const ask of root?.asks ?? []) {
            this.#counts.failed++;
            ask.settle(ask.reject, error);
        }
        for (const job of [...this.#jobs.values()]) if (job.keys.includes(key)) this.#fail(job.key, error);
        this.#hasLost = true;
    }
}
