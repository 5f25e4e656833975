// viewer/worker.js in a thread of Node, which has no `self`.
import { parentPort } from "node:worker_threads";

globalThis.self = { postMessage: (message, transfer) => parentPort.postMessage(message, transfer) };
await import("../../viewer/worker.js");
parentPort.on("message", (data) => self.onmessage({ data }));
