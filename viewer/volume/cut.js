const MARGIN_OF_CUT = 1e-4; // of the volume: lines of blocks that lie in the plane stay

/** A plane across an axis that hides what lies on one side of it. */
export class Cut {
    /** planes: for materials; empty while nothing is cut */
    planes = [];

    constructor(stage, size) {
        Object.assign(this, { stage, size, state: null });
    }

    /** @param state { axis: 0, 1, 2 for x, y, z, part: 0 to 1 of it, isFlipped: hides what lies below }, or null */
    show(state) {
        this.state = state;
        this.planes.length = 0;
        if (state) {
            const { three, voxels } = this.stage;
            const place = new three.Vector3().setComponent(state.axis, state.part * this.size[2 - state.axis] - 0.5);
            voxels.localToWorld(place); // which brings its matrix up to date
            const normal = new three.Vector3().setComponent(state.axis, state.isFlipped ? 1 : -1);
            normal.transformDirection(voxels.matrixWorld);
            const plane = new three.Plane().setFromNormalAndCoplanarPoint(normal, place);
            plane.constant += MARGIN_OF_CUT;
            this.planes.push(plane);
        }
        this.stage.draw();
    }
}
