import { make } from "../page/controls.js";
import { hush, say } from "../page/messages.js";
import { counted } from "../page/readout.js";
import { Body } from "./body.js";
import { Bricks } from "./bricks.js";
import { stlOf } from "./stl.js";

const MOST_VOXELS = 2 ** 25; // of the level that is shown at first
const REFRESH = [250, 5000]; // least and most milliseconds from one drawing of new bricks to the next; between them
const SHARE = 5; // times what a drawing takes: without a graphics processor it takes the time of the workers

/** The finest level that is there and not too large for a first look. levels: coarse to fine */
export function firstLevel(levels) {
    const small = levels.filter(({ size }) => size.reduce((product, n) => product * n, 1) <= MOST_VOXELS);
    return (small.at(-1) ?? levels[0]).index;
}

/** A surface on a stage, which grows brick by brick. */
export class Shell {
    #refreshing = null;
    #refreshed = 0; // when
    #isOld = false; // what is drawn
    #hasTold = false; // of a surface that is not there, or not whole

    /**
     * @param planes that cut it @param onShown called whenever what is drawn may have changed
     * @param nothing what is said where there is no surface @param field of Bricks
     */
    constructor(stage, fit, tiles, { planes = [], onShown, nothing, field }) {
        Object.assign(this, { stage, onShown, nothing });
        this.body = new Body(stage, planes);
        this.bricks = new Bricks(fit, tiles, () => this.refresh(), field);
    }

    close() {
        clearTimeout(this.#refreshing);
        this.bricks.close();
    }

    /** Shows a level. */
    goTo(level) {
        return this.#build(() => this.bricks.goTo(level));
    }

    /** Shows another surface from now on; what is seen stays until there are bricks of it. */
    change(field) {
        const { level } = this.bricks;
        this.bricks.close();
        this.bricks.levels.clear();
        this.bricks.field = field;
        this.#isOld = true;
        return this.goTo(level);
    }

    /** What is seen, as a file. rows: of three factors and a shift, from voxels of level 0 to x, y, z in the file */
    download(name, rows) {
        const parts = [...this.bricks.visible()].map(({ level, surface }) => ({
            ...surface,
            rows: rows.map(([x, y, z, shift]) => [
                ...[x, y, z].map((one) => one * 2 ** level), shift + ((x + y + z) * (2 ** level - 1)) / 2,
            ]),
        }));
        const href = URL.createObjectURL(new Blob([stlOf(parts)], { type: "model/stl" }));
        make("a", { href, download: `${name.replace(/\.miner$/, "")}.stl` }).click();
        setTimeout(() => URL.revokeObjectURL(href), 60000);
    }

    /** start: of making bricks. */
    async #build(start) {
        if (this.#hasTold) hush();
        this.#hasTold = false;
        start();
        this.refresh();
        const { whenDone } = this.bricks;
        await whenDone;
        if (whenDone === this.bricks.whenDone) this.#tellResult();
    }

    #tellResult() {
        const { bricks } = this;
        const { failed, level } = bricks;
        if (failed.length) {
            this.#hasTold = true;
            const all = bricks.of(level).length;
            const some = failed.length === all ? "Nothing" : `${all - failed.length} of ${counted(all, "brick")}`;
            say(`${some} of level ${level} could be decoded: ${failed[0].error.message}`,
                { isBad: true, action: ["Try again", () => this.#build(() => bricks.retry())] });
        } else if (![...bricks.visible()].some(({ surface }) => surface.indices.length)) {
            this.#hasTold = true;
            say(this.nothing);
        }
    }

    /** Shows the bricks that are there, soon: drawing each one as it comes would take the time that they need. */
    refresh() {
        const pause = Math.min(Math.max(REFRESH[0], SHARE * this.stage.cost), REFRESH[1]);
        const rest = this.#refreshed + pause - performance.now();
        this.#refreshing ??= setTimeout(() => this.show(), rest);
    }

    show() {
        clearTimeout(this.#refreshing);
        this.#refreshing = null;
        this.#refreshed = performance.now();
        const bricks = [...this.bricks.visible()];
        if (this.#isOld && (bricks.length || this.bricks.isComplete)) {
            this.body.clear();
            this.#isOld = false;
        }
        if (!this.#isOld) this.body.show(bricks);
        this.onShown();
    }
}
