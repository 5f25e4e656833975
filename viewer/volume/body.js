const BODY = "#c3c7cf";
const INNER = "#d98a4e"; // the inner side, which a cut lays open
const BEHIND = { polygonOffset: true, polygonOffsetUnits: 4 }; // else it shines through at rims

/** The surface as it is drawn: a mesh for each side of each brick, so that a cut looks like a cut. */
export class Body {
    #drawn = new Map(); // brick -> group

    constructor(stage, planes) {
        const { three } = stage;
        Object.assign(this, { stage, group: new three.Group(), counts: { triangles: 0, vertices: 0 } });
        const common = { clippingPlanes: planes };
        this.outside = new three.MeshStandardMaterial({ ...common, color: BODY, roughness: 0.75 });
        this.inside = new three.MeshBasicMaterial({ ...common, color: INNER, side: three.BackSide, ...BEHIND });
        this.depth = new three.MeshBasicMaterial({ ...common, colorWrite: false, side: three.DoubleSide });
        this.opacity = 1;
        stage.voxels.add(this.group);
    }

    /** Shows these bricks, and no others. */
    show(bricks) {
        const wanted = new Set(bricks);
        for (const [brick, group] of this.#drawn) group.visible = wanted.has(brick);
        for (const brick of wanted) if (!this.#drawn.has(brick)) this.#add(brick);
        this.counts = { triangles: 0, vertices: 0 };
        for (const { surface } of wanted) {
            this.counts.triangles += surface.indices.length / 3;
            this.counts.vertices += surface.positions.length / 3;
        }
        this.stage.draw();
    }

    /** Forgets all bricks. */
    clear() {
        for (const group of this.#drawn.values()) group.children[0].geometry.dispose(); // which its meshes share
        this.#drawn.clear();
        this.group.clear();
    }

    #add(brick) {
        const { three } = this.stage;
        const { positions, normals, indices } = brick.surface;
        const geometry = new three.BufferGeometry();
        geometry.setAttribute("position", new three.BufferAttribute(positions, 3));
        geometry.setAttribute("normal", new three.BufferAttribute(normals, 3));
        geometry.setIndex(new three.BufferAttribute(indices, 1));
        const group = new three.Group();
        group.scale.setScalar(2 ** brick.level);
        group.position.setScalar((2 ** brick.level - 1) / 2);
        [this.depth, this.inside, this.outside].forEach((material, order) => {
            const mesh = new three.Mesh(geometry, material);
            mesh.renderOrder = order;
            group.add(mesh);
        });
        this.#drawn.set(brick, group);
        this.group.add(group);
    }

    get opacity() {
        return this.outside.opacity;
    }

    /** Where it is not opaque, its depth is drawn first: only the nearest part is blended with what lies behind. */
    set opacity(value) {
        const isBlended = value < 1;
        for (const material of [this.outside, this.inside, this.depth]) {
            material.needsUpdate = material.transparent !== isBlended; // its program writes no opacity otherwise
            material.transparent = isBlended;
        }
        for (const material of [this.outside, this.inside]) material.opacity = value;
        this.depth.visible = isBlended;
        this.group.visible = value > 0;
        this.stage.draw();
    }

    /** Whether one may see the inner side: through a cut, or where parts are not there. */
    set isOpen(value) {
        this.inside.visible = value;
    }

    get isFlat() {
        return this.outside.flatShading;
    }

    set isFlat(value) {
        this.outside.flatShading = value;
        this.outside.needsUpdate = true;
        this.stage.draw();
    }
}
