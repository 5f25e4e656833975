// Tiles by the decoder: node tiles.mjs FILE FOLDER. Writes what each level shows as float32; prints what came of it.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openFit } from "../../viewer/file/format.js";
import { bytesRanges } from "../../viewer/file/ranges.js";
import { countOf } from "../../viewer/file/windows.js";
import { copyBox } from "../../viewer/tiles/boxes.js";
import { Tiles } from "../../viewer/tiles/tiles.js";
import { wholeOf } from "./fit.mjs";
import { threads } from "./pool.mjs";

const FACTOR = 3;
const SAMPLES = 70; // of a tile

const [file, folder] = process.argv.slice(2);
const ranges = bytesRanges(new Uint8Array(readFileSync(file)), "x.miner");
const fit = await openFit(ranges);
const pool = await threads(2, fit);
const tiles = new Tiles(fit, ranges, pool);
const count = (size) => size.reduce((a, b) => a * b);

// What tiles show together; those that fail are left 0, and their errors are told.
async function together(window, promises) {
    const whole = { values: new Float32Array(fit.nChannels * countOf(window)), window };
    const settled = await Promise.allSettled(promises);
    for (const { value: tile } of settled) if (tile) copyBox(tile, whole, tile.window, fit.nChannels);
    return {
        ...whole,
        made: settled.map(({ value }) => value).filter(Boolean),
        errors: settled.map(({ reason }) => reason?.message ?? null),
    };
}

function isRightRgba({ rgba, values }) {
    const n = rgba.length / 4;
    return values.every((value, at) => {
        const [channel, pixel] = [Math.floor(at / n), at % n];
        return Math.abs(rgba[4 * pixel + channel] - 255 * value) <= 0.5001;
    });
}

async function level(index) {
    const here = fit.levels.get(index);
    const numbers = Array.from({ length: count(here.chunks) }, (_, number) => number);
    const shown = await together(
        wholeOf(here.size),
        numbers.map((number) => tiles.shown(index, number, { rgba: true }))
    );
    writeFileSync(join(folder, `shown${index}.f32`), shown.values);
    const raw = await together(
        wholeOf(here.size),
        numbers.map((number) => tiles.raw(index, number))
    );
    writeFileSync(join(folder, `raw${index}.f32`), raw.values);
    const again = await tiles.window("shown", index, wholeOf(here.size)).catch(() => null);
    const units = Array.from({ length: count(here.grid) }, (_, block) => tiles.shapeOf(index, block)?.n_hidden ?? 0);
    const isRgba = shown.made.every(
        ({ rgba, values }) => rgba.length === 4 * (values.length / fit.nChannels) && isRightRgba({ rgba, values })
    );
    return {
        errors: shown.errors,
        isRgba,
        isWindow: again !== null && again.every((value, i) => value === shown.values[i]),
        units,
    };
}

async function enlarged() {
    const size = fit.levels.get(fit.finest).size.map((length) => FACTOR * length);
    const [rows, columns] = size.map((length) => Math.ceil(length / SAMPLES));
    const places = Array.from({ length: rows * columns }, (_, i) => [Math.floor(i / columns), i % columns]);
    const made = await together(
        wholeOf(size),
        places.map((place) => tiles.enlarged(FACTOR, place, SAMPLES, { rgba: true }))
    );
    writeFileSync(join(folder, "enlarged.f32"), made.values);
    return { errors: made.errors, isRgba: made.made.every(isRightRgba) };
}

const levels = {};
for (const index of fit.levels.keys()) if (index >= fit.finest) levels[index] = await level(index);
const beyond =
    fit.finest > 0 &&
    (await tiles
        .shown(fit.finest - 1, count(fit.levels.get(fit.finest - 1).chunks) - 1)
        .catch((error) => error.message));
const samples = fit.size.length === 2 ? await enlarged() : null;
const edge = await tiles
    .window(
        "shown",
        fit.finest,
        fit.size.map(() => [-2, 3])
    )
    .catch(() => null);
console.log(
    JSON.stringify({ finest: fit.finest, levels, beyond, samples, edge: edge && [...edge], stats: tiles.stats })
);
pool.close();
