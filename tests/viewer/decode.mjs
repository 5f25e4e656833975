// decode.mjs FIT FOLDER [FACTOR ...]: every level tile by tile, as finer ones build on it, and the finest enlarged.
// Written to the folder: N.f32 and N.groups of each level, and xFACTOR.f32: its last third along each axis.

import { writeFileSync } from "node:fs";
import { enlargedWindow } from "../../viewer/file/windows.js";
import { assembled, cropped } from "../../viewer/tiles/boxes.js";
import { decoderOf, openFile, wholeOf } from "./fit.mjs";

const [path, folder, ...factors] = process.argv.slice(2);
const { fit, jobs } = await openFile(path);
const decoder = await decoderOf(fit.header);
const n = fit.nChannels;
let coarser = null;
for (const { index, size, grid } of fit.levels.values()) {
    const [tiles, groups] = [[], []];
    for (const job of jobs(index)) {
        const { window, blocks, active } = job.chunk;
        const reach = decoder.parentWindow(index, window);
        const parent = reach && { values: cropped(coarser.values, coarser.window, reach, n), window: reach };
        const tile = await decoder.tile({ ...job, parent });
        tiles.push({ values: tile.values, window });
        let next = 0;
        groups.push({ values: Float32Array.from(active, (one) => (one ? tile.groups[next++] : -1)), window: blocks });
    }
    coarser = { values: assembled(tiles, wholeOf(size), size, n), window: wholeOf(size), size };
    writeFileSync(`${folder}/${index}.f32`, coarser.values);
    writeFileSync(`${folder}/${index}.groups`, Int8Array.from(assembled(groups, wholeOf(grid), grid, 1)));
}
for (const factor of factors.map(Number)) {
    const { values, window, size } = coarser;
    const wanted = size.map((length) => [Math.floor((2 * length) / 3) * factor + 1, length * factor]);
    const reach = enlargedWindow(wanted, factor, size);
    const pixels = { values: cropped(values, window, reach, n), window: reach, size };
    writeFileSync(`${folder}/x${factor}.f32`, decoder.enlarged(pixels, factor, wanted));
}
