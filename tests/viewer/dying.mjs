// A worker that dies of a task that says so.
import { parentPort } from "node:worker_threads";

parentPort.on("message", ({ module, id, task }) => {
    if (module) return;
    if (task.kind === "die") throw new Error("out of memory");
    setTimeout(() => parentPort.postMessage({ id, result: { echo: task.kind }, seconds: 0.5 }), task.wait ?? 0);
});
