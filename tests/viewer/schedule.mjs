// In which order tiles are made, and what is dropped: node schedule.mjs FILE. The pool and the file are stand-ins that
// note what they are asked for. Prints JSON, what came of each case.
import { readFileSync } from "node:fs";
import { FitError, openFit } from "../../viewer/file/format.js";
import { bytesRanges } from "../../viewer/file/ranges.js";
import { sizeOf } from "../../viewer/file/windows.js";
import { Tiles } from "../../viewer/tiles/tiles.js";
import { Thread, threads } from "./pool.mjs";

const bytes = new Uint8Array(readFileSync(process.argv[2]));
const fit = await openFit(bytesRanges(bytes, "x.miner"));
const { nChannels, nScales } = fit;
const coarsest = nScales - 1;
const nLeaves = fit.levels.get(0).chunks.reduce((a, b) => a * b);
const isAbout = (what, ...parts) => what.startsWith(parts.join("/"));
const later = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// A pool that takes two tasks at a time, and notes them: tile/level/number or means/level. Values are their level.
class NotingPool {
    tasks = [];
    seconds = 0;
    room = 2;
    onTask = () => {};

    async run(task) {
        this.room--;
        const level = task.level ?? task.values[0] + 1;
        this.tasks.push(task.kind === "tile" ? `tile/${level}/${task.chunk.number}` : `means/${level}`);
        this.onTask(task);
        await later();
        this.room++;
        const size = task.kind === "tile" ? sizeOf(task.chunk.window) : task.size.map((length) => length / 2);
        return { values: new Float32Array(size.reduce((n, length) => n * length, nChannels)).fill(level) };
    }
}

// A file that notes reads, and answers when it is let.
function notingRanges(delay = 0) {
    const reads = [];
    let moment = 0; // in which reads are asked for together
    return {
        ...bytesRanges(bytes, "x.miner"),
        reads,
        async read(start, stop, signal) {
            const read = { start, stop, end: "pending", moment };
            reads.push(read);
            setImmediate(() => (moment = reads.length));
            await later(delay);
            read.end = signal.aborted ? "aborted" : "read";
            signal.throwIfAborted();
            return bytes.slice(start, stop);
        },
    };
}

function made(options, delay) {
    const [pool, ranges] = [new NotingPool(), notingRanges(delay)];
    return { pool, ranges, tiles: new Tiles(fit, ranges, pool, options) };
}

const wordsOf = (promise) =>
    promise.then(
        () => null,
        (error) => [error.name, error instanceof FitError, error.message]
    );

const CASES = {
    async depthFirst() {
        const { pool, tiles, ranges } = made();
        await tiles.shown(coarsest - 1, 0);
        const leaves = pool.tasks.filter((task) => isAbout(task, "tile", 0));
        return {
            tasks: pool.tasks,
            nLeaves: leaves.length,
            nDistinct: new Set(pool.tasks.filter((task) => isAbout(task, "tile"))).size,
            reads: ranges.reads.length,
            moments: new Set(ranges.reads.map(({ moment }) => moment)).size,
            waiting: tiles.stats.waiting,
        };
    },

    async bound() {
        const most = 60 * 4 * nChannels * 64 * 64;
        const { pool, tiles } = made({ bytes: most });
        let highest = 0;
        pool.onTask = () => (highest = Math.max(highest, tiles.stats.bytes));
        await Promise.all(Array.from({ length: nLeaves }, (_, number) => tiles.shown(0, number)));
        await tiles.shown(coarsest - 1, 0);
        return { most, highest, last: tiles.stats.bytes, all: 4 * nChannels * fit.size.reduce((a, b) => a * b) };
    },

    async tinyBound() {
        const { pool, tiles } = made({ bytes: 1 });
        await tiles.shown(coarsest - 1, 0);
        return { bytes: tiles.stats.bytes, nTasks: pool.tasks.length };
    },

    async once() {
        const { pool, tiles } = made();
        const [one, other] = await Promise.all([tiles.raw(0, 0), tiles.raw(0, 0)]);
        const before = pool.tasks.length;
        await tiles.raw(0, 0);
        const window = fit.levels.get(0).chunkOf(0).window;
        const windows = await Promise.all([1, 2].map(() => tiles.window("raw", 0, window)));
        const again = pool.tasks.length - before;
        return { same: one.values === other.values, own: windows[0] !== windows[1], tasks: pool.tasks, again };
    },

    async order() {
        const { pool, tiles } = made();
        await Promise.all([
            tiles.raw(0, 63, { priority: 2 }),
            tiles.raw(0, 0, { priority: 1 }),
            tiles.raw(coarsest, 0, { priority: 9 }),
        ]);
        return { tasks: pool.tasks };
    },

    async cancelled() {
        const { pool, tiles, ranges } = made({}, 20);
        const [one, other] = [new AbortController(), new AbortController()];
        const outcomes = [
            tiles.shown(coarsest - 1, 0, { signal: one.signal }),
            tiles.raw(0, 63, { signal: other.signal }),
            tiles.raw(0, 63),
        ].map(wordsOf);
        let atAbort = null;
        pool.onTask = () => {
            if (pool.tasks.filter((task) => isAbout(task, "tile", 0)).length < 5 || atAbort) return;
            atAbort = pool.tasks.length;
            one.abort();
            other.abort();
        };
        const errors = await Promise.all(outcomes);
        await later(60);
        return { errors, after: pool.tasks.slice(atAbort), waiting: tiles.stats.waiting };
    },

    async cancelledReads() {
        const { pool, tiles, ranges } = made({}, 30);
        const [one, other] = [new AbortController(), new AbortController()];
        const outcomes = [
            tiles.shown(coarsest - 1, 0, { signal: one.signal }),
            tiles.raw(1, 0, { signal: other.signal }),
        ];
        const errors = Promise.all(outcomes.map(wordsOf));
        await later(5);
        const nAsked = ranges.reads.length;
        one.abort();
        await later(100);
        const [read, aborted] = ["read", "aborted"].map((how) => ranges.reads.filter(({ end }) => end === how).length);
        return { errors: await errors, nAsked, tasks: pool.tasks, read, aborted };
    },

    async readOnce() {
        const { pool, tiles, ranges } = made();
        const controller = new AbortController();
        pool.room = 0;
        const cancelled = wordsOf(tiles.raw(coarsest, 0, { signal: controller.signal }));
        await later(20);
        controller.abort();
        await cancelled;
        pool.room = 2;
        const { run } = pool;
        pool.run = async () => {
            throw new Error("it is damaged");
        };
        const reads = [ranges.reads.length];
        const error = await wordsOf(tiles.raw(coarsest, 0));
        reads.push(ranges.reads.length);
        pool.run = run;
        await tiles.raw(coarsest, 0);
        return { error, reads: [...reads, ranges.reads.length] };
    },

    async cancelledBeforeItBegan() {
        const { pool, tiles } = made();
        return { error: await wordsOf(tiles.raw(0, 0, { signal: AbortSignal.abort() })), tasks: pool.tasks.length };
    },

    async failedRead() {
        const { ranges, tiles, pool } = made();
        const [bad, good] = [fit.levels.get(0).chunkOf(0), fit.levels.get(0).chunkOf(63)];
        const read = ranges.read;
        ranges.read = async (start, ...rest) => {
            if (start === bad.start) throw new FitError("x.miner cannot be read");
            return read(start, ...rest);
        };
        const outcomes = await Promise.all(
            [tiles.raw(0, 0), tiles.shown(coarsest - 1, 0), tiles.raw(0, 63)].map(wordsOf)
        );
        const { failed } = tiles.stats;
        ranges.read = read;
        return {
            outcomes,
            failed,
            good: good.nActive > 0,
            again: await wordsOf(tiles.raw(0, 0)),
            tasks: pool.tasks.length,
            waiting: tiles.stats.waiting,
        };
    },

    async failedBelow() {
        const { ranges, tiles } = made({}, 20);
        const { read } = ranges;
        const bad = fit.levels.get(1).chunkOf(0).start;
        ranges.read = async (start, ...rest) => {
            if (start === bad) throw new FitError("x.miner cannot be read");
            return read(start, ...rest);
        };
        const error = await wordsOf(tiles.raw(0, 0));
        await later(60);
        return { error, ends: ranges.reads.map(({ end }) => end) };
    },

    async workersThatDie() {
        const spawned = [];
        const pool = await threads(2, fit, () => spawned[spawned.push(new Thread("./dying.mjs")) - 1]);
        await Promise.all([pool.run({ kind: "a" }), pool.run({ kind: "b" })]);
        const during = [pool.run({ kind: "die" }), pool.run({ kind: "c" })];
        const outcomes = await Promise.all(during.map(wordsOf));
        const after = await Promise.all([1, 2, 3, 4, 5].map(() => pool.run({ kind: "d" })));
        const found = { outcomes, after, size: pool.size, seconds: pool.seconds };
        pool.close();
        spawned.at(-1).onerror({ message: "too late" });
        return { ...found, nSpawned: spawned.length };
    },

    async workersThatNeverStart() {
        const pool = await threads(2, fit, () => new Thread("./absent.mjs"));
        const tiles = new Tiles(fit, bytesRanges(bytes, "x.miner"), pool);
        return { one: await wordsOf(tiles.raw(0, 0)), later: await wordsOf(tiles.raw(0, 1)), size: pool.size };
    },

    async queue() {
        const pool = await threads(1, fit, () => new Thread("./dying.mjs"));
        const order = [];
        const [cancelled, begun] = [new AbortController(), pool.run({ kind: "first", wait: 30 })];
        const room = [pool.room];
        const runs = [
            ["late", 5],
            ["soon", 1],
            ["late too", 5],
            ["never", 0, cancelled.signal],
            ["soonest", -1],
        ].map(([kind, priority, signal]) =>
            pool.run({ kind }, { priority, signal }).then(
                () => order.push(kind),
                (error) => order.push(error.name)
            )
        );
        room.push(pool.room);
        cancelled.abort();
        await Promise.all([begun, ...runs]);
        pool.close();
        return { order, room, closed: await wordsOf(pool.run({ kind: "x" })) };
    },

    async overview() {
        globalThis.createImageBitmap = async (blob) => ({ type: blob.type, size: blob.size });
        const { start, stop } = fit.overviewTile(0);
        const right = await new Tiles(fit, bytesRanges(bytes, "x.miner"), new NotingPool()).overview(0, 0);
        const spoilt = bytes.slice();
        spoilt[start + 30] ^= 1;
        const error = await wordsOf(new Tiles(fit, bytesRanges(spoilt, "x.miner"), new NotingPool()).overview(0, 0));
        return { right, length: stop - start, error };
    },
};

const found = {};
for (const [name, run] of Object.entries(CASES)) found[name] = await run();
console.log(JSON.stringify(found));
