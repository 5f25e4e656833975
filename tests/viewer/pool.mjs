// The pool of the viewer, of threads of Node.
import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { makePool } from "../../viewer/tiles/pool.js";

export class Thread extends Worker {
    constructor(path = "./worker.mjs") {
        super(new URL(path, import.meta.url));
        this.on("message", (data) => this.onmessage({ data }));
        this.on("error", (error) => this.onerror({ message: error.message }));
    }
}

const read = () => readFileSync(new URL("../../viewer/decoder/decoder.wasm", import.meta.url));

export function threads(n, fit, spawn = () => new Thread()) {
    return makePool(n, fit, { spawn, read });
}
