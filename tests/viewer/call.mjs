// Calls of functions without WebAssembly, JSON [[name, [argument, ...]], ...] of stdin; prints what they return.

import { readFileSync } from "node:fs";
import { rgbaOf } from "../../viewer/decoder/decoder.js";
import { halved } from "../../viewer/decoder/resampling.js";
import { chunkChecksum, crc32 } from "../../viewer/file/crc32.js";
import { enlargedWindow, parentWindow } from "../../viewer/file/windows.js";

const functions = {
    crc32: (bytes, cut) => crc32(Uint8Array.from(bytes.slice(cut)), crc32(Uint8Array.from(bytes.slice(0, cut)))),
    chunkChecksum: (level, number, bytes) => chunkChecksum(level, number, Uint8Array.from(bytes)),
    enlargedWindow,
    parentWindow,
    halved: (values, size) => Array.from(halved(Float32Array.from(values), size)),
    rgbaOf: (values, ...others) => Array.from(rgbaOf(Float32Array.from(values), ...others)),
};
const calls = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(calls.map(([name, given]) => functions[name](...given))));
