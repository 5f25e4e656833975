/** A pool of plain workers. */

import { newWorker, resource } from "../page/site.js";

const MOST_WORKERS = 8;
const DEPTH = 2; // tasks of a worker: the next one waits there, so that it is never idle

/**
 * Workers that decode a fit.
 *
 * @param n workers, or null for as many as the processor is good for
 * @param fit of `format.js`
 * @param spawn makes a Worker
 * @param read of the compiled decoder, an ArrayBuffer
 * @returns {Promise<Pool>}
 */
export async function makePool(n, fit, { spawn = newWorker, read = () => resource("decoder/decoder.wasm") } = {}) {
    return new Pool(n ?? defaultSize(), spawn, { module: await WebAssembly.compile(await read()), header: fit.header });
}

function defaultSize() {
    const cores = navigator.hardwareConcurrency ?? 2;
    return Math.max(Math.min(cores, 2), Math.min(MOST_WORKERS, cores - 1));
}

/** seconds: that its workers have worked, all together; onRoom: called when there is more room */
class Pool {
    seconds = 0;
    onRoom = () => {};
    #workers = []; // { worker, tasks: Map(id -> task), hasAnswered }
    #queue = [];
    #spawn;
    #start;
    #nextId = 0;
    #failure = null;

    constructor(n, spawn, start) {
        this.#spawn = spawn;
        this.#start = start;
        for (let i = 0; i < n; i++) this.#add();
    }

    get size() {
        return this.#workers.length;
    }

    /** How many more tasks would be answered, or be with a worker, at once. */
    get room() {
        if (this.#workers.length === 0) return DEPTH;
        return this.#workers.reduce((room, { tasks }) => room + DEPTH - tasks.size, 0) - this.#queue.length;
    }

    /**
     * @param task { kind, ... }, of worker.js
     * @param priority those of a lower one run first
     * @param signal AbortSignal: a task that has not begun is not run
     * @param transfer buffers of the task that are handed over, not copied
     * @returns {Promise} what the worker makes of it
     */
    run(task, { priority = 0, signal = null, transfer = [] } = {}) {
        return new Promise((resolve, reject) => {
            signal?.throwIfAborted();
            const abort = () => {
                this.#queue = this.#queue.filter((other) => other !== item);
                reject(signal.reason);
            };
            const settled = (finish) => (value) => {
                signal?.removeEventListener("abort", abort); // a signal may outlive thousands of tasks
                finish(value);
            };
            const item = { task, priority, transfer, resolve: settled(resolve), reject: settled(reject) };
            signal?.addEventListener("abort", abort);
            this.#queue.push(item);
            this.#queue.sort((one, other) => one.priority - other.priority);
            this.#dispatch();
        });
    }

    /** Ends all workers. */
    close() {
        for (const one of this.#workers.splice(0)) this.#end(one, new Error("the fit was closed"));
        this.#failure = new Error("the fit was closed");
        this.#dispatch();
    }

    #add() {
        const worker = this.#spawn();
        const one = { worker, tasks: new Map(), hasAnswered: false };
        worker.onmessage = ({ data }) => this.#receive(one, data);
        worker.onerror = (event) => this.#replace(one, event.message);
        worker.postMessage(this.#start);
        this.#workers.push(one);
    }

    #dispatch() {
        while (this.#queue.length && this.#workers.length === 0) this.#queue.shift().reject(this.#failure);
        while (this.#queue.length) {
            const one = this.#workers.reduce((best, other) => (other.tasks.size < best.tasks.size ? other : best));
            if (one.tasks.size >= DEPTH) return;
            const item = this.#queue.shift();
            one.tasks.set(++this.#nextId, item);
            one.worker.postMessage({ id: this.#nextId, task: item.task }, item.transfer);
        }
    }

    #receive(one, { id, result, seconds = 0, error }) {
        const item = one.tasks.get(id);
        one.tasks.delete(id);
        one.hasAnswered = true;
        this.seconds += seconds;
        if (error === undefined) item?.resolve(result);
        else item?.reject(new Error(error));
        this.#dispatch();
        this.onRoom();
    }

    /** Of a worker that died. One that has never answered would die again. */
    #replace(one, reason) {
        if (!this.#workers.includes(one)) return; // it was ended: more of its errors may be on their way
        const failure = new Error(`a worker stopped (${reason || "no reason was given"}); reload the page`);
        this.#workers = this.#workers.filter((other) => other !== one);
        this.#end(one, failure);
        if (one.hasAnswered) this.#add();
        else this.#failure = failure;
        this.#dispatch();
        this.onRoom();
    }

    #end({ worker, tasks }, failure) {
        worker.terminate();
        for (const { reject } of tasks.values()) reject(failure);
    }
}
