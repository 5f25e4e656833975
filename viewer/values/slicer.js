import { sliceOf } from "../volume/slices.js";

const LEAST_DETAIL = 0.501; // screen pixels that a voxel of the level asked for has at least

/** The slices across one axis, from coarse to fine, each of the bricks that it touches and no others. */
export class Slicer {
    /** What is there: { values, index, size: [rows, columns], level, voxel, isExact }; null before the first. */
    slice = null;
    whenDone = Promise.resolve();
    #aborter = new AbortController();
    #wanted = "";

    /** @param axis of voxels: 0, 1, 2 for x, y, z @param onSlice called when one comes @param onFail with Errors */
    constructor(fit, tiles, axis, onSlice, onFail) {
        Object.assign(this, { fit, tiles, axis, onSlice, onFail });
        this.levels = [...fit.levels.values()].filter(({ index }) => index >= fit.finest);
    }

    /** Shows a voxel of level 0 along the axis. detail: screen pixels a voxel of level 0 */
    show(voxel, detail) {
        const level = this.levels.findLast(({ index }) => detail * 2 ** index >= LEAST_DETAIL) ?? this.levels[0];
        const wanted = `${voxel} ${level.index}`;
        if (wanted === this.#wanted) return;
        this.#wanted = wanted;
        this.#aborter.abort();
        this.#aborter = new AbortController();
        this.whenDone = this.#decode(voxel, level, this.#aborter.signal);
    }

    /** Whether what is there is what was asked for last. */
    get isDone() {
        const { slice } = this;
        return slice !== null && slice.isExact && this.#wanted === `${slice.voxel} ${slice.level.index}`;
    }

    close() {
        this.#aborter.abort();
    }

    /** A coarser level is shown as finer ones build on it, which takes nothing else. Surfaces wait for slices. */
    async #decode(voxel, wanted, signal) {
        const ladder = this.levels.filter(({ index }) => index >= wanted.index);
        try {
            for (const [step, level] of ladder.entries()) {
                const { window, index, size } = sliceOf(level, 2 - this.axis, voxel);
                const isExact = level === wanted;
                const options = { priority: step - ladder.length, signal };
                const values = await this.tiles.window(isExact ? "shown" : "raw", level.index, window, options);
                if (signal.aborted) return;
                this.slice = { values, index, size, level, voxel, isExact };
                this.onSlice(this.slice);
            }
        } catch (error) {
            if (!signal.aborted) this.onFail(error);
        }
    }
}
