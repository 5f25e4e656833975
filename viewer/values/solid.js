import { make } from "../page/controls.js";
import { Shell, firstLevel } from "../volume/shell.js";
import { Stage, followTheme, unitOf } from "../volume/stage.js";
import { placementOf } from "./space.js";

const FRONT = [145, 5]; // azimuth and elevation from which one sees a face, in degrees
const IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]];
const PATIENCE_OF_SURFACE = 120; // milliseconds without another threshold before a surface is made
const NOTHING = "No value is above this threshold, so there is no surface. Choose a lower one.";

/** The surface at a threshold, in a pane of its own; nothing of it is made before it is asked for. */
export class Solid {
    shell = null;
    #opening = null;
    #closers = [];
    #changing = null;
    #isClosed = false;

    constructor(page) {
        this.page = page;
        this.button = make("button", { type: "button", className: "button" }, "Show the surface");
        this.button.addEventListener("click", () => page.switchSurface());
        this.hint = make("p", {});
        this.invitation = make("div", { className: "invitation" }, this.button, this.hint);
        this.place = make("div", { className: "stage", hidden: true });
        this.element = make("figure", { className: "plane solid" }, this.place, this.invitation,
            make("figcaption", {}, make("b", {}, "3-D")));
    }

    close() {
        this.#isClosed = true;
        clearTimeout(this.#changing);
        for (const close of this.#closers) close();
    }

    get isThere() {
        return this.shell !== null;
    }

    /** Shows a state of the page; the promise is that of all that it takes. */
    async show({ surface, opacity, level, camera }) {
        const isOn = surface !== null;
        this.invitation.hidden = isOn;
        this.place.hidden = !isOn;
        if (!isOn || this.element.hidden) return;
        await (this.#opening ??= this.#open(camera));
        if (!this.shell || this.#isClosed) return;
        const { shell } = this;
        if (shell.body.opacity !== opacity) shell.body.opacity = opacity;
        const field = this.page.field;
        const isSame = Object.entries(field).every(([name, value]) => shell.bricks.field[name] === value);
        if (!isSame) this.#change(field);
        else if (shell.bricks.level !== (level ?? this.firstLevel)) shell.goTo(level ?? this.firstLevel);
    }

    get firstLevel() {
        return firstLevel(this.page.levels);
    }

    #change(field) {
        clearTimeout(this.#changing);
        this.#changing = setTimeout(() => {
            this.#changing = null;
            this.shell.change(field);
        }, PATIENCE_OF_SURFACE);
    }

    async #open(camera) {
        const { page } = this;
        if (!document.createElement("canvas").getContext("webgl2")) {
            page.tellFailure(new Error("surfaces are drawn by WebGL 2: turn on hardware acceleration"));
            return;
        }
        const three = await import("three");
        const { OrbitControls } = await import("three/addons/controls/OrbitControls.js");
        if (this.#isClosed) return;
        const { fit } = page;
        this.placement = placementOf(fit.size, page.source);
        this.stage = new Stage(three, OrbitControls, this.place, unitOf(fit.size, null));
        this.stage.place(this.placement);
        this.zoom(0);
        if (camera) this.stage.look = camera;
        this.stage.controls.addEventListener("change", () => page.link?.changed());
        const onShown = () => page.tell();
        this.shell = new Shell(this.stage, fit, page.tiles, { onShown, nothing: NOTHING, field: page.field });
        this.shell.body.isOpen = false;
        const turn = (event) => this.stage.turnAround(event, this.shell.body.group, []);
        this.stage.canvas.addEventListener("dblclick", turn);
        this.#closers.push(followTheme(this.stage), () => this.shell.close(), () => this.stage.close());
    }

    /** Nearer by a factor; a factor of 0 shows the whole, a body from its front. */
    zoom(factor) {
        const { stage, placement } = this;
        if (!stage) return;
        if (factor) {
            stage.zoom(factor);
            return;
        }
        stage.home();
        if (placement.up === "z") stage.look = [...FRONT, ...stage.look.slice(2)];
    }

    /** The surface, where the file says that the volume lies. */
    download() {
        const { fit: { name }, source } = this.page;
        this.shell?.download(name, (source.affine ?? IDENTITY).slice(0, 3));
    }

    /** Resolves when the surface is complete and drawn. */
    async settled() {
        await this.#opening;
        if (!this.shell || this.place.hidden) return;
        while (this.#changing) await new Promise((resolve) => setTimeout(resolve, PATIENCE_OF_SURFACE));
        await this.shell.bricks.whenDone;
        this.shell.show();
        await this.stage.whenDrawn();
    }
}
