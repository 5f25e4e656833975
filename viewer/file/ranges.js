/**
 * Ranges of bytes of a file, wherever it lies: { name, size, stats: { bytes, requests }, read(start, stop, signal) }.
 *
 * `read` promises a Uint8Array with a buffer of its own; it fails with a FitError, or as the signal says.
 */

import { FitError } from "./format.js";

const FIRST_BYTES = 2 ** 16; // of a file on a server; they are kept
const MOST_GAP = 2 ** 14; // bytes: fewer are read in vain rather than asked around
const MOST_MERGED = 2 ** 22; // bytes of a request that answers several reads
const MOST_REQUESTS = 6; // at once
const MOST_WHOLE = 2 ** 24; // bytes of a file that is taken whole where a server knows no ranges
const RETRY_AFTER = 200; // milliseconds

/** Of bytes in memory. */
export function bytesRanges(bytes, name) {
    return {
        name,
        size: bytes.length,
        stats: { bytes: 0, requests: 0 },
        async read(start, stop, signal) {
            signal?.throwIfAborted();
            return bytes.slice(start, stop);
        },
    };
}

/** Of a file that was chosen or dropped, a File. */
export function fileRanges(file) {
    const stats = { bytes: 0, requests: 0 };
    const complaint = `${file.name} was changed or moved while it was read; open it again`;
    return {
        name: file.name,
        size: file.size,
        stats,
        async read(start, stop, signal) {
            signal?.throwIfAborted();
            const data = await file
                .slice(start, stop)
                .arrayBuffer()
                .catch(() => null);
            signal?.throwIfAborted();
            if (data?.byteLength !== stop - start) throw new FitError(complaint);
            stats.requests++;
            stats.bytes += stop - start;
            return new Uint8Array(data);
        },
    };
}

/** Of a file on a server. Its first bytes are asked for at once, and with them its size. */
export async function httpRanges(url) {
    const name = String(url).split(/[?#]/)[0].split("/").pop() || String(url);
    return tryTwice(
        async () => {
            const response = await fetchRange(url, name, 0, FIRST_BYTES);
            if (response.status === 200) return wholeFile(response, name);
            const size = sizeToldBy(response, name);
            const first = new Uint8Array(await response.arrayBuffer());
            if (first.length !== Math.min(size, FIRST_BYTES)) throw otherBytes(name);
            return new HttpRanges(url, name, size, first);
        },
        (error) => asFitError(error, name, url)
    );
}

class HttpRanges {
    #url;
    #first;
    #queue = []; // reads that wait for a request
    #nRequests = 0;
    #isScheduled = false;

    constructor(url, name, size, first) {
        Object.assign(this, { name, size, stats: { bytes: first.length, requests: 1 } });
        this.#url = url;
        this.#first = first;
    }

    async read(start, stop, signal) {
        signal?.throwIfAborted();
        const head = this.#first.slice(start, stop);
        if (head.length === stop - start) return head;
        const rest = await this.#ranged(start + head.length, stop, signal);
        if (head.length === 0) return rest;
        const data = new Uint8Array(stop - start);
        data.set(head);
        data.set(rest, head.length);
        return data;
    }

    #ranged(start, stop, signal) {
        return new Promise((resolve, reject) => {
            const read = { start, stop, request: null, resolve, reject };
            const abort = () => this.#abort(read, signal.reason);
            read.settle = (finish, value) => {
                signal?.removeEventListener("abort", abort);
                finish(value);
            };
            signal?.addEventListener("abort", abort);
            this.#queue.push(read);
            this.#schedule();
        });
    }

    #abort(read, reason) {
        this.#queue = this.#queue.filter((other) => other !== read);
        read.settle(read.reject, reason);
        read.request?.reads.delete(read);
        if (read.request?.reads.size === 0) read.request.controller.abort();
    }

    /** Reads that are asked for in the same moment wait for each other. */
    #schedule() {
        if (this.#isScheduled) return;
        this.#isScheduled = true;
        setTimeout(() => {
            this.#isScheduled = false;
            while (this.#nRequests < MOST_REQUESTS && this.#queue.length) this.#ask(this.#takeReads());
        });
    }

    /** Those of one request. What lies first in the file comes first: the overview, and coarser levels. */
    #takeReads() {
        this.#queue.sort((one, other) => one.start - other.start);
        const begin = this.#queue[0].start;
        let [count, end] = [0, begin];
        for (const { start, stop } of this.#queue) {
            if (count > 0 && (start > end + MOST_GAP || stop > begin + MOST_MERGED)) break;
            end = Math.max(end, stop);
            count++;
        }
        return this.#queue.splice(0, count);
    }

    async #ask(reads) {
        const request = { reads: new Set(reads), controller: new AbortController() };
        for (const read of reads) read.request = request;
        this.#nRequests++;
        try {
            await tryTwice(
                () => this.#receive(request),
                (error) => asFitError(error, this.name, this.#url)
            );
        } catch (error) {
            for (const read of request.reads) read.settle(read.reject, error);
        }
        this.#nRequests--;
        this.#schedule();
    }

    /** Each read is answered as soon as its bytes are there. */
    async #receive({ reads, controller }) {
        if (reads.size === 0) return;
        const start = Math.min(...[...reads].map((read) => read.start));
        const stop = Math.max(...[...reads].map((read) => read.stop));
        this.stats.requests++;
        const response = await fetchRange(this.#url, this.name, start, stop, controller.signal);
        if (response.status !== 206 || sizeToldBy(response, this.name) !== this.size) {
            await response.body?.cancel();
            throw new FitError(`${this.name} was changed on the server while it was read; reload the page`);
        }
        const data = new Uint8Array(stop - start);
        let filled = 0;
        for (const stream = response.body.getReader(); ;) {
            const { done, value } = await stream.read();
            if (done) break;
            if (filled + value.length > data.length) throw otherBytes(this.name);
            data.set(value, filled);
            filled += value.length;
            this.stats.bytes += value.length;
            for (const read of reads) {
                if (read.stop > start + filled) continue;
                reads.delete(read);
                read.settle(read.resolve, data.slice(read.start - start, read.stop - start));
            }
            if (reads.size === 0 && filled < data.length) return stream.cancel(); // who waited for the rest gave up
        }
        if (filled < data.length) throw new Error(`${filled} bytes came of ${data.length}`);
    }
}

/** A response of status 206, or 200 where the server knows no ranges. */
async function fetchRange(url, name, start, stop, signal) {
    const response = await fetch(url, { headers: { Range: `bytes=${start}-${stop - 1}` }, signal });
    if (response.status === 206 || response.status === 200) return response;
    await response.body?.cancel();
    if (response.status === 404) throw new FitError(`${name} is not on the server (404); check the address`);
    if (response.status === 416) throw new FitError(`${name} is not a .miner file: it is empty`);
    throw new Error(`the server answers ${response.status}`);
}

function sizeToldBy(response, name) {
    const size = /^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "")?.[1];
    if (size) return Number(size);
    throw new FitError(
        `${name}: the server does not tell how large the file is; it must send Content-Range and, to pages of other ` +
            "servers, Access-Control-Expose-Headers: Content-Range"
    );
}

/** From a server that knows no ranges, if the file is small. */
async function wholeFile(response, name) {
    const parts = [];
    let total = Number(response.headers.get("Content-Length") ?? 0);
    const complaint =
        `${name}: the server knows no range requests, and the file is too large to be read whole; ` +
        "use another server, such as view.py, or download it and open it here";
    const stream = response.body.getReader();
    for (let received = 0; total <= MOST_WHOLE;) {
        const { done, value } = await stream.read();
        if (done) {
            const ranges = bytesRanges(new Uint8Array(await new Blob(parts).arrayBuffer()), name);
            Object.assign(ranges.stats, { bytes: received, requests: 1 });
            return ranges;
        }
        parts.push(value);
        received += value.length;
        total = Math.max(total, received);
    }
    await stream.cancel();
    throw new FitError(complaint);
}

/** What fails is tried once more, but for what would fail again: an AbortError, and what was said in words. */
async function tryTwice(run, inWords) {
    try {
        return await run();
    } catch (error) {
        if (error instanceof FitError || error.name === "AbortError") throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
    try {
        return await run();
    } catch (error) {
        throw error.name === "AbortError" ? error : inWords(error);
    }
}

function asFitError(error, name, url) {
    if (error instanceof FitError) return error;
    const { origin } = globalThis.location ?? {};
    const isElsewhere = origin && new URL(url, origin).origin !== origin;
    const more = isElsewhere ? `, and that ${new URL(url).host} lets other pages read it (CORS)` : "";
    return new FitError(`${name} cannot be read (${error.message}); check the address and the network${more}`);
}

function otherBytes(name) {
    return new FitError(`${name}: the server gives other bytes than it is asked for; download it and open it here`);
}
