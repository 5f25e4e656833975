const CONTOUR = "#ff7a1a"; // of the surface in a slice
const LAST = 10; // of what is drawn
const VERTEX = `
    varying vec2 place;
    void main() {
        place = uv;
        gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
    }`;
const FRAGMENT = `
    uniform sampler2D field;
    uniform vec3 contour;
    uniform bool isBody;
    varying vec2 place;
    void main() {
        float value = texture2D(field, place).r;
        float width = 1.5 * fwidth(value) + 1e-4;
        float line = 1.0 - smoothstep(0.5 * width, width, abs(value - 0.5));
        if ((value > 0.5 || line > 0.0) != isBody) discard;
        vec3 grey = vec3(pow(isBody ? 0.25 + 0.65 * value : 0.5, 2.2)); // as the eye sees it
        gl_FragColor = vec4(mix(grey, contour, line), isBody ? 1.0 : 0.2);
        #include <colorspace_fragment>
    }`;

/**
 * Where a slice lies in its level: { window, index, size: [rows, columns] }.
 *
 * @param axis 0, 1, 2: z, y, x @param voxel of level 0, along the axis
 */
export function sliceOf(level, axis, voxel) {
    const last = level.size[axis] - 1;
    const index = Math.min(Math.max(Math.round((voxel + 0.5) / 2 ** level.index - 0.5), 0), last);
    const window = level.size.map((n, other) => (other === axis ? [index, index + 1] : [0, n]));
    return { window, index, size: level.size.filter((_, other) => other !== axis) };
}

/** A plane that shows the field where it cuts the volume, across one axis. */
export class Slice {
    #plane = null;
    #aborter = new AbortController();

    /** @param onFail called with the Error of a slice that cannot be decoded */
    constructor(stage, fit, tiles, axis, onFail) {
        Object.assign(this, { stage, fit, tiles, axis, onFail, level: null, voxel: null, whenDone: Promise.resolve() });
    }

    /** Shows it at a voxel of level 0 along its axis, decoded from a level; null hides it. */
    show(level, voxel) {
        if (level === this.level && voxel === this.voxel) return;
        Object.assign(this, { level, voxel });
        this.#aborter.abort();
        if (voxel === null) {
            if (this.#plane) this.#plane.group.visible = false;
            this.stage.draw();
            return;
        }
        this.#aborter = new AbortController();
        this.whenDone = this.#decode(this.fit.levels.get(level), voxel, this.#aborter.signal);
    }

    close() {
        this.#aborter.abort();
    }

    async #decode(level, voxel, signal) {
        const slice = sliceOf(level, this.axis, voxel);
        try {
            const values = await this.tiles.window("shown", level.index, slice.window, { priority: 0, signal });
            if (signal.aborted) return;
            this.#draw(level, slice, values);
        } catch (error) {
            if (!signal.aborted) this.onFail(error);
        }
    }

    #draw(level, { index, size: [rows, columns] }, values) {
        const { three } = this.stage;
        const bytes = Uint8Array.from(values, (value) => 255 * value + 0.5);
        const texture = new three.DataTexture(bytes, columns, rows, three.RedFormat);
        texture.magFilter = texture.minFilter = three.LinearFilter;
        texture.needsUpdate = true;
        this.#plane ??= this.#make();
        const { field, group } = this.#plane;
        field.value?.dispose();
        field.value = texture;
        this.#place(level, index);
        group.visible = true;
        this.stage.draw();
    }

    #make() {
        const { three, voxels } = this.stage;
        const geometry = new three.BufferGeometry();
        geometry.setAttribute("position", new three.BufferAttribute(new Float32Array(12), 3));
        geometry.setAttribute("uv", new three.BufferAttribute(Float32Array.of(0, 0, 1, 0, 0, 1, 1, 1), 2));
        geometry.setIndex([0, 1, 2, 2, 1, 3]);
        const uniforms = { field: { value: null }, contour: { value: new three.Color(CONTOUR) } };
        const material = (isBody) => new three.ShaderMaterial({
            vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms: { ...uniforms, isBody: { value: isBody } },
            side: three.DoubleSide, transparent: !isBody, depthWrite: isBody,
        });
        const group = new three.Group(); // what lies outside the body hides nothing
        for (const isBody of [true, false]) {
            const mesh = new three.Mesh(geometry, material(isBody));
            mesh.frustumCulled = false; // it moves
            mesh.renderOrder = isBody ? 0 : LAST;
            group.add(mesh);
        }
        voxels.add(group);
        return { group, geometry, field: uniforms.field };
    }

    /** Its corners, in the order of the texture's: columns first. */
    #place(level, index) {
        const step = 2 ** level.index;
        const position = this.#plane.geometry.getAttribute("position");
        const [slow, fast] = [0, 1, 2].filter((axis) => axis !== this.axis);
        for (let corner = 0; corner < 4; corner++) {
            const place = [0, 0, 0];
            place[this.axis] = (index + 0.5) * step - 0.5;
            place[slow] = (corner >> 1) * level.size[slow] * step - 0.5;
            place[fast] = (corner & 1) * level.size[fast] * step - 0.5;
            position.setXYZ(corner, ...place.reverse());
        }
        position.needsUpdate = true;
    }
}
