// damage.mjs FIT: damage of many kinds to a chunk. Prints, as JSON, the messages, and what is wrong with the decoder.

import { chunkChecksum } from "../../viewer/file/crc32.js";
import { decoderOf, openFile } from "./fit.mjs";

const { fit, jobs } = await openFile(process.argv[2]);
const decoder = await decoderOf(fit.header);
const [job] = jobs(fit.nScales - 1);
const { length } = job.data;
const flipped = (place, bits) => job.data.map((byte, i) => (i === place ? byte ^ bits : byte));
const [messages, wrong] = [new Set(), []];
const whole = (await decoder.tile(job)).values;
const { top } = decoder.arena;
const { byteLength } = decoder.arena.memory.buffer;

async function attempt(data, checksum = chunkChecksum(job.level, job.chunk.number, data)) {
    try {
        const { values } = await decoder.tile({ ...job, data, checksum });
        if (values.length !== whole.length) wrong.push("a tile of another size");
    } catch (error) {
        messages.add(error.message);
        if (error.constructor !== Error) wrong.push(String(error.stack));
    }
}

await attempt(flipped(9, 1), job.checksum);
await attempt(null, job.checksum);
for (let i = 0; i < 200; i++) await attempt(flipped((7 * i) % length, 1 << i % 8));
for (let i = 0; i < 40; i++) await attempt(job.data.subarray(0, Math.floor((length * i) / 40)));
await attempt(Uint8Array.from([...job.data, 0, 0]));
await attempt(new Uint8Array(0));
await attempt(new Uint8Array(5000).map((_, i) => (i * i * 31) ^ (i >> 3)));
const again = (await decoder.tile(job)).values;
if (!again.every((value, i) => value === whole[i])) wrong.push("another picture after damage");
if (decoder.arena.top !== top) wrong.push("memory that is not given back");
for (let i = 0; i < 50; i++) await decoder.tile(job);
if (decoder.arena.memory.buffer.byteLength > byteLength + 2 ** 24) wrong.push("memory that grows");
console.log(JSON.stringify({ messages: [...messages], wrong }));
