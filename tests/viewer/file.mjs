// What openFit reads of files: node file.mjs describe FILE... | damage FILE COUNT. Prints JSON.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { FitError, openFit } from "../../viewer/file/format.js";
import { bytesRanges } from "../../viewer/file/ranges.js";

const [what, ...files] = process.argv.slice(2);
const opened = (bytes, name) => openFit(bytesRanges(new Uint8Array(bytes), name));

function described(fit) {
    const levels = [...fit.levels.values()].map((level) => ({
        level: level.index,
        size: level.size,
        isThere: level.isThere,
        active: Array.from({ length: level.grid.reduce((a, b) => a * b) }, (_, block) => level.isActive(block)),
        chunks: Array.from({ length: level.chunks.reduce((a, b) => a * b) }, (_, number) => {
            const chunk = level.chunkOf(number);
            return { ...chunk, active: [...chunk.active] };
        }),
        places: Array.from({ length: level.grid.reduce((a, b) => a * b) }, (_, block) => level.placeOf(block)),
    }));
    const n = (fit.overview?.pictures ?? []).reduce((sum, { tiles: [rows, columns] }) => sum + rows * columns, 0);
    const tiles = Array.from({ length: n }, (_, number) => fit.overviewTile(number));
    const { name, size, nScales, nChannels, finest, overview, bytes } = fit;
    return { name, size, nScales, nChannels, finest, overview, bytes, levels, tiles };
}

// A generator of numbers in [0, 1): mulberry32.
function seeded(state) {
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let value = Math.imul(state ^ (state >>> 15), 1 | state);
        value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
        return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
    };
}

function spoilt(bytes, end, random) {
    const kind = random();
    if (kind < 0.2) return bytes.slice(0, Math.floor(random() * end));
    if (kind < 0.3) return Buffer.concat([bytes, Buffer.alloc(1 + Math.floor(random() * 9))]);
    const other = Buffer.from(bytes);
    for (let n = 1 + Math.floor(random() * 3); n > 0; n--)
        other[Math.floor(random() * end)] ^= 1 + Math.floor(random() * 255);
    return other;
}

async function outcome(bytes, name) {
    try {
        return { fit: described(await opened(bytes, name)) };
    } catch (error) {
        return { error: error.message, inWords: error instanceof FitError };
    }
}

if (what === "describe") {
    console.log(JSON.stringify(await Promise.all(files.map((file) => outcome(readFileSync(file), basename(file))))));
} else {
    const bytes = readFileSync(files[0]);
    const end = 32 + bytes.readUInt32LE(12) + bytes.readUInt32LE(16);
    const random = seeded(1);
    const found = [];
    for (let i = 0; i < Number(files[1]); i++) found.push(await outcome(spoilt(bytes, end, random), "x.miner"));
    console.log(JSON.stringify(found));
}
