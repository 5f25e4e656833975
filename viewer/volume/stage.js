const FIELD_OF_VIEW = 35; // degrees, of the shorter side
const HOME = [-35, 15]; // azimuth and elevation, degrees
const MARGIN = 1.08; // around the box of the volume
const KEY_TURN = Math.PI / 24;
const MOST_DENSITY = 2; // pixels drawn for one of CSS, along an axis

/** Where a volume is seen: a camera that is turned around it, light, and drawings only after a change. */
export class Stage {
    /**
     * @param three the module; @param Controls its OrbitControls; @param element in which the canvas is put
     * @param unit { scale: [x, y, z], shift: [x, y, z] }: of voxels of level 0, into a ball of radius 1 around 0
     */
    constructor(three, Controls, element, { scale, shift }) {
        this.three = three;
        this.corner = shift.map((low, axis) => low - scale[axis] / 2); // of the box of all voxels, around 0
        this.renderer = new three.WebGLRenderer({ antialias: true });
        this.renderer.localClippingEnabled = true;
        this.canvas = this.renderer.domElement;
        this.canvas.tabIndex = 0;
        this.canvas.setAttribute("aria-label", "The volume; drag to turn it");
        element.append(this.canvas);
        this.element = element;
        this.voxels = new three.Group(); // everything in it is in voxels of level 0
        this.voxels.scale.set(...scale);
        this.voxels.position.set(...shift);
        this.camera = new three.PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 50);
        this.upright = new three.Group(); // turned so that the axis that points up does
        this.upright.add(this.voxels);
        this.scene = new three.Scene();
        this.scene.add(this.upright, this.camera, new three.HemisphereLight(0xffffff, 0x4a4038, 0.9));
        this.#addLight(2.6, [-1, 1.2, 1.6]);
        this.#addLight(0.9, [1.5, 0.4, -1]);
        this.controls = new Controls(this.camera, this.canvas);
        Object.assign(this.controls, { dampingFactor: 0.12, minDistance: 0.05, maxDistance: 20 });
        this.glides = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
        this.controls.addEventListener("change", () => this.draw());
        this.drawn = []; // who waits for it
        this.isClosed = false;
        this.covered = 0;
        this.cost = 0; // milliseconds of the last drawing, about
        this.frame = null;
        this.observer = new ResizeObserver(() => this.resize());
        this.observer.observe(element);
        this.resize();
        this.home();
    }

    /** A light that goes with the camera. place: from where it shines, x to the right, y up, z behind the camera */
    #addLight(intensity, place) {
        const light = new this.three.DirectionalLight(0xffffff, intensity);
        light.position.set(...place);
        this.camera.add(light, light.target);
    }

    close() {
        this.isClosed = true;
        this.observer.disconnect();
        this.controls.dispose();
        this.renderer.dispose();
        this.renderer.forceContextLoss();
        this.canvas.remove();
    }

    /** Draws soon; as often as it is asked for before that, once. */
    draw() {
        this.frame ??= requestAnimationFrame(() => {
            this.frame = null;
            if (this.isClosed) return;
            const glides = this.controls.update(); // then it has asked for the next drawing
            const begin = performance.now();
            this.renderer.render(this.scene, this.camera);
            requestAnimationFrame(() => (this.cost = performance.now() - begin)); // which waits for the drawing
            if (!glides) for (const resolve of this.drawn.splice(0)) resolve();
        });
    }

    /** When what was changed so far has been drawn, and the view rests. */
    whenDrawn() {
        this.draw();
        return new Promise((resolve) => this.drawn.push(resolve));
    }

    resize() {
        const { clientWidth: width, clientHeight: height } = this.element;
        if (!width || !height) return;
        this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, MOST_DENSITY));
        this.renderer.setSize(width, height);
        this.camera.aspect = width / height;
        this.camera.setViewOffset(width, height, 0, this.covered / 2, width, height);
        const half = Math.tan((FIELD_OF_VIEW * Math.PI) / 360);
        this.camera.fov = (360 / Math.PI) * Math.atan(half / Math.min(1, this.camera.aspect));
        this.camera.updateProjectionMatrix();
        this.draw();
    }

    /** Puts the voxels elsewhere: { matrix, corner, up } of space.js. */
    place({ matrix, corner, up }) {
        this.voxels.matrixAutoUpdate = false;
        this.voxels.matrix.set(...matrix.flat());
        this.voxels.matrixWorldNeedsUpdate = true;
        this.corner = corner;
        this.up = up;
        this.home();
    }

    /** Keeps the middle of the view where nothing lies over it. height: in pixels, of what does from below */
    cover(height) {
        this.covered = height;
        this.resize();
    }

    set background(css) {
        this.scene.background = this.colour(css);
        this.draw();
    }

    /** Any colour of CSS; three.js knows but the older ways to write them. */
    colour(css) {
        const { style } = document.createElement("span");
        style.color = css;
        return new this.three.Color(style.color);
    }

    /** The whole box, as near as it fits. */
    home() {
        const { Vector3, MathUtils } = this.three;
        this.look = [...HOME, 1];
        const high = Math.tan(MathUtils.degToRad(this.camera.fov / 2));
        const turned = this.camera.quaternion.clone().invert();
        const distances = Array.from({ length: 8 }, (_, i) => {
            const signs = [i & 1, i & 2, i & 4].map((bit) => (bit ? 1 : -1));
            const corner = new Vector3(...this.corner.map((one, axis) => one * signs[axis]));
            const [x, y, z] = corner.applyQuaternion(this.upright.quaternion).applyQuaternion(turned);
            return z + MARGIN * Math.max(Math.abs(y) / high, Math.abs(x) / high / this.camera.aspect);
        });
        this.look = [...HOME, Math.max(...distances)];
    }

    /** Whether one looks at it from below, along an axis of the mesh. */
    isBelow(axis) {
        const turned = this.upright.quaternion.clone().invert();
        return this.camera.position.clone().applyQuaternion(turned).getComponent(axis) < 0;
    }

    /** Which axis of the mesh points up, "y" or "z". */
    set up(axis) {
        this.upright.rotation.x = axis === "z" ? -Math.PI / 2 : 0;
        this.draw();
    }

    /** Turns around the point of an object that is seen at a place of the canvas, from now on. */
    turnAround({ offsetX, offsetY }, object, planes) {
        const { Raycaster, Vector2 } = this.three;
        const ray = new Raycaster();
        const { clientWidth: width, clientHeight: height } = this.canvas;
        ray.setFromCamera(new Vector2((2 * offsetX) / width - 1, 1 - (2 * offsetY) / height), this.camera);
        const isShown = ({ point }) => planes.every((plane) => plane.distanceToPoint(point) >= 0);
        const hit = ray.intersectObject(object).find(isShown);
        if (hit) this.controls.target.copy(hit.point);
        this.draw();
    }

    /** [azimuth, elevation, distance, target x, y, z], the angles in degrees. */
    get look() {
        const { controls } = this;
        const angles = [controls.getAzimuthalAngle(), Math.PI / 2 - controls.getPolarAngle()];
        return [...angles.map(this.three.MathUtils.radToDeg), controls.getDistance(), ...controls.target.toArray()];
    }

    set look([azimuth, elevation, distance, ...target]) {
        const { Spherical, Vector3, MathUtils } = this.three;
        const [polar, around] = [90 - elevation, azimuth].map(MathUtils.degToRad);
        const place = new Spherical(distance, polar, around).makeSafe();
        this.controls.enableDamping = false;
        this.controls.update(); // ends the glide
        this.controls.enableDamping = this.glides;
        this.controls.target.fromArray(target.length === 3 ? target : [0, 0, 0]);
        this.camera.position.copy(this.controls.target).add(new Vector3().setFromSpherical(place));
        this.controls.update();
        this.draw();
    }

    /** By steps to the right and up, as a key does. */
    turn(right, up) {
        this.controls.rotateLeft(-right * KEY_TURN);
        this.controls.rotateUp(-up * KEY_TURN);
        this.draw();
    }

    zoom(factor) {
        this.controls.dollyIn(1 / factor);
        this.draw();
    }
}

/** Keeps the background of a stage that of the page's theme; returns what ends it. */
export function followTheme(stage) {
    const follow = () => {
        stage.background = getComputedStyle(document.documentElement).getPropertyValue("--canvas");
    };
    const observer = new MutationObserver(follow);
    observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    follow();
    return () => observer.disconnect();
}

/**
 * How voxels of level 0 lie in the unit of their mesh: x = scale * voxel + shift along each of x, y, z.
 *
 * @param size [d, h, w] @param frame { centre, half_extents } in x, y, z, or null: then a voxel is the unit
 */
export function meshOf(size, frame) {
    const along = [...size].reverse();
    if (!frame) return { scale: [1, 1, 1], shift: [0, 0, 0] };
    const scale = along.map((n, axis) => (2 * frame.half_extents[axis]) / Math.max(n - 1, 1));
    return { scale, shift: along.map((n, axis) => frame.centre[axis] - (scale[axis] * (n - 1)) / 2) };
}

/** The same, of the box of all voxels in a ball of radius 1 around 0. */
export function unitOf(size, frame) {
    const along = [...size].reverse();
    const extents = meshOf(size, frame).scale.map((scale, axis) => scale * along[axis]);
    const scale = extents.map((extent, axis) => (2 * extent) / Math.hypot(...extents) / along[axis]);
    return { scale, shift: scale.map((step, axis) => (-step * (along[axis] - 1)) / 2) };
}
