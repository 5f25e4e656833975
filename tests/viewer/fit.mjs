// A .miner file, opened in Node.js, and its decoder.

import { readFileSync } from "node:fs";
import { makeDecoder } from "../../viewer/decoder/decoder.js";
import { openFit } from "../../viewer/file/format.js";
import { bytesRanges } from "../../viewer/file/ranges.js";

const wasm = new URL("../../viewer/decoder/decoder.wasm", import.meta.url);

export async function decoderOf(header) {
    return makeDecoder(readFileSync(wasm), header);
}

/** The window of all pixels. */
export const wholeOf = (size) => size.map((length) => [0, length]);

/** { fit, jobs: of a level, what its decoder's `tile` is given of each chunk, but for the parent } */
export async function openFile(path) {
    const bytes = new Uint8Array(readFileSync(path));
    const fit = await openFit(bytesRanges(bytes, path));
    const jobs = (level) => {
        const { chunks } = fit.levels.get(level);
        return Array.from({ length: chunks.reduce((a, b) => a * b) }, (_, number) => {
            const { start, stop, checksum, ...chunk } = fit.levels.get(level).chunkOf(number);
            return { level, chunk, data: chunk.nActive ? bytes.subarray(start, stop) : null, checksum, parent: null };
        });
    };
    return { fit, jobs };
}
