// Reads over HTTP against a small server: node ranges.mjs. Prints JSON, what came of each case.
import { createServer } from "node:http";
import { FitError } from "../../viewer/file/format.js";
import { fileRanges, httpRanges } from "../../viewer/file/ranges.js";

const DATA = Uint8Array.from({ length: 2 ** 23 }, (_, i) => (i * 7 + (i >> 8)) & 255);
const server = {
    asked: [],
    aborted: 0,
    inFlight: 0,
    mostInFlight: 0,
    hasRanges: true,
    failures: 0,
    delay: 0,
    most: Infinity, // bytes of a response, after which no more come
    size: DATA.length,
};

const http = createServer((request, response) => {
    if (request.url === "/absent.miner") return response.writeHead(404).end();
    server.inFlight++;
    server.mostInFlight = Math.max(server.mostInFlight, server.inFlight);
    response.on("close", () => {
        server.inFlight--;
        if (!response.writableFinished) server.aborted++;
    });
    const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range);
    const [start, stop] = [Number(range[1]), Math.min(Number(range[2]) + 1, server.size)];
    server.asked.push([start, stop]);
    if (server.failures-- > 0) return server.inFlight === 1 ? response.destroy() : response.writeHead(503).end();
    setTimeout(() => {
        if (!server.hasRanges)
            return response.writeHead(200, { "Content-Length": server.size }).end(DATA.subarray(0, server.size));
        response.writeHead(206, { "Content-Range": `bytes ${start}-${stop - 1}/${server.size}` });
        if (start + server.most < stop) response.write(DATA.subarray(start, start + server.most));
        else response.end(DATA.subarray(start, stop));
    }, server.delay);
});
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${http.address().port}`;

const isRight = (data, start, stop) =>
    data.length === stop - start && data.every((byte, i) => byte === DATA[start + i]);
async function until(isSo) {
    for (let n = 0; !isSo(); n++) {
        if (n > 1000) throw new Error(`waited in vain until ${isSo}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
}

const wordsOf = (promise) =>
    promise.then(
        () => "nothing was refused",
        (error) => (error instanceof FitError ? error.message : `${error.name}, not in words: ${error.message}`)
    );

async function opened(settings = {}) {
    Object.assign(server, {
        asked: [],
        aborted: 0,
        mostInFlight: 0,
        hasRanges: true,
        failures: 0,
        delay: 0,
        most: Infinity,
        size: DATA.length,
    });
    Object.assign(server, settings);
    return httpRanges(`${address}/some%20folder/x.miner?v=1`);
}

const CASES = {
    async first() {
        const ranges = await opened();
        const data = await ranges.read(100, 2 ** 16);
        return {
            name: ranges.name,
            size: ranges.size,
            right: isRight(data, 100, 2 ** 16),
            asked: server.asked,
            stats: ranges.stats,
        };
    },

    async merged() {
        const ranges = await opened();
        server.asked = [];
        const spans = [
            [300_000, 310_000],
            [100_000, 200_000],
            [200_000, 210_000],
            [226_384, 230_000],
            [246_385, 250_000],
            [4_000_000, 5_000_000],
            [1_000_000, 4_000_000],
            [5_000_000, 6_000_000],
            [305_000, 306_000],
        ];
        const found = await Promise.all(spans.map(([start, stop]) => ranges.read(start, stop)));
        return {
            right: found.every((data, i) => isRight(data, ...spans[i])),
            asked: server.asked,
            bytes: ranges.stats.bytes,
        };
    },

    async sixAtOnce() {
        const ranges = await opened({ delay: 20 });
        const spans = Array.from({ length: 40 }, (_, i) => [100_000 + 200_000 * i, 100_010 + 200_000 * i]);
        const found = await Promise.all(spans.map(([start, stop]) => ranges.read(start, stop)));
        return { right: found.every((data, i) => isRight(data, ...spans[i])), most: server.mostInFlight };
    },

    async aborted() {
        const ranges = await opened({ delay: 100 });
        server.asked = [];
        const [one, other, queued] = [new AbortController(), new AbortController(), new AbortController()];
        const names = [];
        const noted = (promise) =>
            promise.then(
                () => names.push("read"),
                (error) => names.push(error.name)
            );
        const reads = [
            noted(ranges.read(100_000, 100_010, one.signal)),
            noted(ranges.read(100_010, 100_020, other.signal)),
            noted(ranges.read(4_000_000, 4_000_010, other.signal)),
            noted(ranges.read(4_000_010, 4_000_020)),
        ];
        await until(() => server.asked.length === 2);
        reads.push(noted(ranges.read(8_000_000, 8_000_010, queued.signal)));
        queued.abort();
        one.abort();
        other.abort();
        await Promise.all(reads);
        await until(() => server.inFlight === 0);
        return { names: names.sort(), asked: server.asked, aborted: server.aborted };
    },

    async givenUpMidway() {
        const ranges = await opened();
        Object.assign(server, { asked: [], delay: 50, most: 5000 });
        const controller = new AbortController();
        const rest = wordsOf(ranges.read(100_100, 110_000, controller.signal));
        const first = ranges.read(100_000, 100_100);
        await until(() => server.asked.length === 1);
        controller.abort();
        const right = isRight(await first, 100_000, 100_100);
        await until(() => server.aborted === 1 && server.inFlight === 0);
        return { right, rest: await rest };
    },

    async retried() {
        const ranges = await opened();
        Object.assign(server, { asked: [], failures: 1 });
        const right = isRight(await ranges.read(100_000, 100_100), 100_000, 100_100);
        server.failures = 2;
        return { right, error: await wordsOf(ranges.read(200_000, 200_100)), asked: server.asked };
    },

    async changed() {
        const ranges = await opened();
        server.size -= 1; // the server tells another size than before
        return { error: await wordsOf(ranges.read(100_000, 100_100)) };
    },

    async noRanges() {
        const ranges = await opened({ hasRanges: false, size: 2 ** 20 });
        const small = { right: isRight(await ranges.read(100_000, 100_100), 100_000, 100_100), size: ranges.size };
        return { small, asked: server.asked.length, stats: ranges.stats };
    },

    async noRangesAndLarge() {
        return { error: await wordsOf(opened({ hasRanges: false, size: 2 ** 24 + 1 })), sent: server.inFlight };
    },

    async absent() {
        return { error: await wordsOf(httpRanges(`${address}/absent.miner`)) };
    },

    async unreachable() {
        return { error: await wordsOf(httpRanges("http://127.0.0.1:9/x.miner")) };
    },

    async local() {
        const ranges = fileRanges(new File([DATA.subarray(0, 1000)], "y.miner"));
        return {
            right: isRight(await ranges.read(10, 20), 10, 20),
            size: ranges.size,
            error: await wordsOf(ranges.read(990, 1010)),
        };
    },
};

const found = {};
for (const [name, run] of Object.entries(CASES)) found[name] = await run();
console.log(JSON.stringify(found));
http.close();
http.closeAllConnections();
