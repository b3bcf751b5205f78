// The eye: it circles a target, z is up. Every change goes to `goal`, which `now` follows smoothly.

const FIELD_OF_VIEW = (40 * Math.PI) / 180;
const STEEPEST = 1.55; // radians; straight up has no azimuth
const FOLLOW_PER_S = 14;
const MARGIN = 1.06; // round what is shown at first

const add = (a, b, s = 1) => a.map((x, i) => x + s * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const normalise = (a) => a.map((x) => x / Math.hypot(...a));

// 4 x 4 matrices are column-major, as WebGL has them.
function multiply(a, b) {
  const c = new Float32Array(16);
  for (let j = 0; j < 4; j++) for (let i = 0; i < 4; i++) for (let k = 0; k < 4; k++) c[4 * j + i] += a[4 * k + i] * b[4 * j + k];
  return c;
}

class Orbit {
  constructor(element, anchors, forward, changed) {
    this.changed = changed;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.anchors = anchors;
    this.start = { target: anchors.reduce((sum, point) => add(sum, point, 1 / anchors.length), [0, 0, 0]), azimuth: Math.atan2(-forward[1], -forward[0]), elevation: 0.6 };
    this.aspect = 1;
    this.inset = 0;
    this.touched = false;
    this.reset(true);
    this.listen(element);
  }

  // Directions of the eye: towards the target, to the right, up.
  axes({ azimuth, elevation } = this.now) {
    const away = [Math.cos(elevation) * Math.cos(azimuth), Math.cos(elevation) * Math.sin(azimuth), Math.sin(elevation)];
    const right = [-Math.sin(azimuth), Math.cos(azimuth), 0];
    return { forward: away.map((x) => -x), right, up: cross(away, right) };
  }

  // In the middle, and as near as all anchors still fit.
  reset(atOnce = false) {
    const { forward, right, up } = this.axes(this.start), half = Math.tan(FIELD_OF_VIEW / 2), wide = half * this.aspect, high = half * (1 - this.inset);
    let { target } = this.start, distance = 2 * Math.max(...this.anchors.map((anchor) => Math.hypot(...add(anchor, target, -1))));
    for (let round = 0; round < 6; round++) {
      const seen = this.anchors.map((anchor) => {
        const arm = add(anchor, target, -1);
        return { x: dot(arm, right), y: dot(arm, up), nearer: -dot(arm, forward) };
      });
      const middle = ["x", "y"].map((k) => { const at = seen.map((s) => s[k] / (distance - s.nearer)); return ((Math.min(...at) + Math.max(...at)) / 2) * distance; });
      target = add(add(target, right, middle[0]), up, middle[1]);
      distance = Math.max(...seen.map((s) => s.nearer + Math.max(Math.abs(s.x - middle[0]) / wide, Math.abs(s.y - middle[1]) / high)));
    }
    this.goal = { ...this.start, target, distance: distance * MARGIN };
    this.touched = false;
    if (atOnce || !this.now) this.now = { ...this.goal };
    this.changed();
  }

  // Until somebody turns the scene, it fits whatever the size of the panel; a share `inset` at its top stays free.
  fit(aspect, inset) {
    if (Math.abs(aspect - this.aspect) < 1e-3 && inset === this.inset) return;
    this.aspect = aspect;
    this.inset = inset;
    if (!this.touched) this.reset(true);
  }

  // Looks from an eye along a direction, at what is `distance` ahead.
  stand(eye, forward, distance) {
    this.touched = true;
    const elevation = Math.asin(Math.max(-1, Math.min(1, -forward[2])));
    let azimuth = Math.atan2(-forward[1], -forward[0]);
    azimuth += 2 * Math.PI * Math.round((this.now.azimuth - azimuth) / (2 * Math.PI)); // the short way round
    this.goal = { target: add(eye, forward, distance), azimuth, elevation: Math.max(-STEEPEST, Math.min(STEEPEST, elevation)), distance };
    this.changed();
  }

  turn(dx, dy) {
    this.touched = true;
    this.goal.azimuth -= dx;
    this.goal.elevation = Math.max(-STEEPEST, Math.min(STEEPEST, this.goal.elevation + dy));
    this.changed();
  }

  // By pixels of a panel so many pixels high.
  pan(dx, dy, height) {
    this.touched = true;
    const scale = (2 * this.goal.distance * Math.tan(FIELD_OF_VIEW / 2)) / height, { right, up } = this.axes(this.goal);
    this.goal.target = add(add(this.goal.target, right, -dx * scale), up, dy * scale);
    this.changed();
  }

  zoom(factor) {
    this.touched = true;
    this.goal.distance = Math.max(0.02, Math.min(100, this.goal.distance * factor));
    this.changed();
  }

  // Follows the goal for `dt` seconds; false when it is there.
  follow(dt) {
    const share = this.still ? 1 : 1 - Math.exp(-FOLLOW_PER_S * dt), { now, goal } = this;
    const gap = Math.abs(goal.azimuth - now.azimuth) + Math.abs(goal.elevation - now.elevation) + Math.abs(Math.log(goal.distance / now.distance)) + Math.hypot(...add(goal.target, now.target, -1)) / now.distance;
    if (gap < 5e-4) {
      this.now = { ...goal };
      return false;
    }
    for (const key of ["azimuth", "elevation"]) now[key] += share * (goal[key] - now[key]);
    now.distance *= (goal.distance / now.distance) ** share;
    now.target = add(now.target, add(goal.target, now.target, -1), share);
    return true;
  }

  get eye() {
    return add(this.now.target, this.axes().forward, -this.now.distance);
  }

  // From the base frame to clip coordinates.
  matrix(aspect) {
    const { forward, right, up } = this.axes(), eye = this.eye, f = 1 / Math.tan(FIELD_OF_VIEW / 2);
    const [near, far] = this.planes();
    const view = [0, 1, 2].flatMap((k) => [right[k], up[k], -forward[k], 0]).concat(-dot(right, eye), -dot(up, eye), dot(forward, eye), 1);
    const lens = [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, this.inset, (near + far) / (near - far), -1, 0, 0, (2 * near * far) / (near - far), 0];
    return multiply(lens, view);
  }

  planes() {
    return [0.02 * this.now.distance, 30 * this.now.distance];
  }

  listen(element) {
    const pointers = new Map();
    const middle = () => [...pointers.values()].reduce((sum, p) => add(sum, p, 1 / pointers.size), [0, 0]);
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    element.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const before = middle(), apart = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      const [dx, dy] = add(middle(), before, -1), height = element.clientHeight;
      if (pointers.size === 2) {
        this.pan(dx, dy, height);
        this.zoom(apart / Math.max(1, spread()));
      } else if (event.buttons & 6 || event.shiftKey) this.pan(dx, dy, height);
      else this.turn((5 * dx) / height, (5 * dy) / height);
    });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, (event) => pointers.delete(event.pointerId));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => {
      // Inside another page, scrolling goes on past the scene until it is clicked.
      if (document.body.classList.contains("alone") && document.activeElement !== element) return;
      event.preventDefault();
      this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY * (event.deltaMode ? 30 : 1))) * 0.003));
    }, { passive: false });
  }
}
