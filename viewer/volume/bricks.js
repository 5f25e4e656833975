import { assembled } from "../tiles/boxes.js";

const IN_FLIGHT = 8; // bricks that are assembled or cut at once: each has a copy of its voxels

/**
 * A part of a surface: that in the cells whose lower corner lies in a chunk; the first ones begin before the box.
 *
 * surface: null while it is not there, and where it could not be made: then `error` tells why
 */
class Brick {
    constructor({ index, size }, window, number) {
        Object.assign(this, { level: index, window, number, isDone: false, surface: null, error: null });
        this.cells = window.map(([start, stop]) => [start || -1, stop]);
        this.samples = window.map(([start, stop], axis) => [Math.max(start - 1, 0), Math.min(stop + 2, size[axis])]);
    }
}

/** The surface of a volume, brick by brick: coarse levels first, each of which the next ones replace as they come. */
export class Bricks {
    /** @param onBrick called whenever one is done; @param field { threshold, channel } whose surface it is */
    constructor(fit, tiles, onBrick, field = { threshold: 0.5, channel: 0 }) {
        Object.assign(this, { fit, tiles, onBrick, field, level: null, ladder: [], whenDone: null });
        this.levels = new Map();
        this.aborter = new AbortController();
    }

    close() {
        this.aborter.abort();
    }

    /** Makes the surface of a level, and of the coarser ones before it. `whenDone` resolves when all is there. */
    goTo(level) {
        this.aborter.abort();
        this.aborter = new AbortController();
        this.level = level;
        const isStep = (one) => one.index === level || (one.index > level && one.isWhole);
        this.ladder = [...this.fit.levels.values()].filter(isStep).map((one) => one.index);
        const waiting = this.ladder.flatMap((one) => this.of(one)).filter((brick) => !brick.isDone);
        const { signal } = this.aborter;
        const next = async () => {
            for (let brick; !signal.aborted && (brick = waiting.shift()); ) await this.make(brick, signal);
        };
        this.whenDone = Promise.all(Array.from({ length: IN_FLIGHT }, next));
    }

    /** All bricks of a level, by their numbers. */
    of(index) {
        if (!this.levels.has(index)) {
            const level = this.fit.levels.get(index);
            const numbers = level.tilesIn(level.size.map((n) => [0, n]));
            this.levels.set(index, numbers.map((number) => new Brick(level, level.chunkOf(number).window, number)));
        }
        return this.levels.get(index);
    }

    async make(brick, signal) {
        const priority = 1 + this.ladder.indexOf(brick.level);
        try {
            const values = await this.valuesOf(brick, { priority, signal });
            const { threshold } = this.field;
            const task = { kind: "surface", values, window: brick.samples, cells: brick.cells, threshold };
            brick.surface = await this.tiles.pool.run(task, { priority, signal, transfer: [values.buffer] });
        } catch (error) {
            if (signal.aborted) return;
            brick.error = error;
        }
        brick.isDone = true;
        this.onBrick(brick);
    }

    /** The voxels of a brick and around it. A neighbour that cannot be decoded counts as empty. */
    async valuesOf(brick, options) {
        const level = this.fit.levels.get(brick.level);
        const asked = level.tilesIn(brick.samples).map((number) => {
            const tile = this.tiles.shown(brick.level, number, options);
            return number === brick.number ? tile : tile.catch(() => null);
        });
        const parts = (await Promise.all(asked)).filter((tile) => tile);
        const { nChannels } = this.fit;
        const values = assembled(parts, brick.samples, level.size, nChannels);
        const n = values.length / nChannels;
        return nChannels === 1 ? values : values.slice(this.field.channel * n, (this.field.channel + 1) * n);
    }

    /** The bricks to be seen: those of the chosen level, and coarser ones where not all that replace them are there. */
    *visible(rung = 0, within = null) {
        for (const brick of this.of(this.ladder[rung])) {
            if (within && !this.liesIn(brick, within)) continue;
            if (brick.level !== this.level && this.isReplaced(brick, rung)) {
                yield* this.visible(rung + 1, brick);
            } else if (brick.surface) {
                yield brick;
            }
        }
    }

    isReplaced(brick, rung) {
        return this.of(this.ladder[rung + 1]).every((finer) => finer.isDone || !this.liesIn(finer, brick));
    }

    liesIn(finer, brick) {
        const factor = 2 ** (brick.level - finer.level);
        return finer.window.every(([start], axis) => {
            const [low, high] = brick.window[axis];
            return low <= start / factor && start / factor < high;
        });
    }

    /** Makes all that failed again. */
    retry() {
        for (const brick of [...this.levels.values()].flat().filter(({ error }) => error)) {
            Object.assign(brick, { isDone: false, error: null });
        }
        this.goTo(this.level);
    }

    /** Of the chosen level's bricks, those that could not be made. */
    get failed() {
        return this.of(this.level).filter((brick) => brick.error);
    }

    /** Whether the bricks of the chosen level are there, but for those that could not be made. */
    get isComplete() {
        return this.of(this.level).every((brick) => brick.isDone);
    }
}
