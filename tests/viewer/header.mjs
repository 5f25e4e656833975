// header.mjs FIT: the coarsest level's tile by headers that are changed, each a JSON [[key, ..., value], ...] of stdin.
// Prints, as JSON, the message that each gives, or null.

import { readFileSync } from "node:fs";
import { decoderOf, openFile } from "./fit.mjs";

const { fit, jobs } = await openFile(process.argv[2]);
const [job] = jobs(fit.nScales - 1);
const messages = [];
for (const changes of JSON.parse(readFileSync(0, "utf8"))) {
    const changed = structuredClone(fit.header);
    for (const path of changes) {
        const [key, value] = path.slice(-2);
        path.slice(0, -2).reduce((place, name) => place[name], changed.levels[0])[key] = value;
    }
    try {
        await (await decoderOf(changed)).tile(job);
        messages.push(null);
    } catch (error) {
        messages.push(`${error.constructor.name}: ${error.message}`);
    }
}
console.log(JSON.stringify(messages));
