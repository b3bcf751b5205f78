// The 3D part: panels side by side or one for all clips, one eye for every panel, cameras where they stand.

const BADGES = 44; // pixels at the top of a panel for what it shows
const LAYERS = ["background", "robot", "objects"]; // in the order of core/types.py
const STREAK = [1, 0.8, 0.1], STREAK_FRAMES = 5;
const VIEW_COLOURS = ["#2f7ed8", "#e1812c", "#3a923a", "#c03d3e", "#9372b2", "#845b53"];

function rgb(hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16) / 255);
}

class Stage {
  constructor(section, look, moments) {
    this.section = section;
    this.look = look;
    this.moments = moments;
    this.canvas = section.querySelector("canvas");
    this.labels = section.querySelector("#labels");
    this.tags = new Map();
    this.panels = [];
    this.frames = new Map();
    this.waiting = false;
    this.orbit = new Orbit(this.canvas, scene.anchors, scene.forward, () => this.redraw());
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => this.start());
    for (const done of ["pointerdown", "wheel"]) this.canvas.addEventListener(done, () => section.querySelector("#hint").classList.add("known"), { passive: true });
    this.canvas.addEventListener("dblclick", (event) => this.centre(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
    this.start();
  }

  start() {
    try {
      this.renderer = new Renderer(this.canvas);
    } catch (error) {
      const trouble = this.section.querySelector("#trouble");
      trouble.textContent = error.message;
      trouble.hidden = false;
    }
    for (const [clip, [frame, moment]] of this.frames) this.show(clip, frame, moment);
  }

  // One frame of one clip, from now on.
  show(clip, frame, moment) {
    this.frames.set(clip, [frame, moment]);
    if (this.renderer) moment.forEach((view, number) => this.renderer.upload(clip, number, frame, view));
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame((now) => this.draw(now));
  }

  draw(now) {
    this.waiting = false;
    const moving = this.orbit.follow(Math.min(0.05, (now - (this.before ?? now)) / 1000 || 0.016));
    const scale = Math.min(2, devicePixelRatio), { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.renderer || !width || !height) return;
    this.renderer.resize(Math.round(width * scale), Math.round(height * scale));
    this.arrange(width, height);
    const panels = this.panels.map((panel) => this.compose(panel, scale, height));
    this.renderer.draw(panels, this.orbit, this.look);
    this.tag();
    this.before = moving ? now : null;
    if (moving) this.redraw();
  }

  // Panels as large as they can be, in CSS pixels from above left.
  arrange(width, height) {
    const clips = this.look.clips, groups = this.look.overlaid ? (clips.length ? [clips] : []) : clips.map((clip) => [clip]);
    let columns = 1, best = 0;
    for (let n = 1; n <= groups.length; n++) {
      const size = Math.min(width / n / 1.25, height / Math.ceil(groups.length / n));
      if (size > best) [columns, best] = [n, size];
    }
    const wide = width / columns, high = height / Math.ceil(groups.length / columns);
    this.panels = groups.map((clips, k) => ({ clips, left: (k % columns) * wide, top: Math.floor(k / columns) * high, width: wide, height: high }));
    this.orbit.fit(groups.length ? wide / high : width / height, Math.min(0.3, BADGES / high));
  }

  compose(panel, scale, height) {
    const whole = (x) => Math.round(x * scale);
    const rectangle = [whole(panel.left), whole(height - panel.top - panel.height), whole(panel.width), whole(panel.height)];
    panel.matrix = this.orbit.matrix(panel.width / panel.height);
    const drawing = { rectangle, matrix: panel.matrix, views: [], pictures: [], lines: [...this.axes()] };
    for (const clip of panel.clips) {
      if (!this.frames.has(clip)) continue;
      const [frame, moment] = this.frames.get(clip);
      clip.cameras.forEach((name, view) => {
        if (!this.look.views.has(name)) return;
        drawing.views.push({ clip, view, frame, tint: this.tint(clip, name) });
        if (this.look.motion) this.streaks(drawing, clip, moment[view].streaks);
        if (this.look.cameras) this.camera(drawing, clip, view, frame);
      });
    }
    return drawing;
  }

  tint(clip, name) {
    if (this.look.colour === "clip") return [...rgb(clip.colour), 0.65];
    return this.look.colour === "view" ? [...rgb(viewColour(name)), 0.65] : [0, 0, 0, 0];
  }

  // The base frame's axes, 10 cm long where depth has metres: x red, y green, z blue.
  axes() {
    return [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map((axis) => [0, 0, 0, ...axis.map((x) => 0.1 * x), ...add([0.15, 0.15, 0.2], axis, 0.65), 0.9]);
  }

  // Where points that move would be after so many frames like this one: one alone is lost among the points.
  streaks(drawing, clip, ends) {
    const paint = this.look.overlaid ? rgb(clip.colour) : STREAK, [low, high] = this.look.box;
    for (let k = 0; k < ends.length; k += 6) {
      const from = [...ends.subarray(k, k + 3)], step = [0, 1, 2].map((axis) => ends[k + 3 + axis] - from[axis]);
      if (from.every((x, axis) => low[axis] <= x && x <= high[axis])) drawing.lines.push([...from, ...add(from, step, STREAK_FRAMES), ...paint, 0.9]);
    }
  }

  // A camera's frustum with what it sees, and the path of one that moves.
  camera(drawing, clip, view, frame) {
    const paint = rgb(this.look.overlaid ? clip.colour : viewColour(clip.cameras[view]));
    const pose = clip.poses[view][frame], [fx, fy, cx, cy] = clip.intrinsics[view][frame], depth = scene.frustum * (clip.moving[view] ? 0.5 : 1);
    const place = (u, v) => [0, 1, 2].map((k) => pose[k] * ((u - cx) / fx) * depth + pose[4 + k] * ((v - cy) / fy) * depth + pose[8 + k] * depth + pose[12 + k]);
    const eye = [...pose.slice(12, 15)], corners = [[0, 0], [clip.width, 0], [0, clip.height], [clip.width, clip.height]].map(([u, v]) => place(u, v));
    const edge = (a, b, alpha) => drawing.lines.push([...a, ...b, ...paint, alpha]);
    for (const corner of corners) edge(eye, corner, 0.75);
    for (const [a, b] of [[0, 1], [1, 3], [3, 2], [2, 0]]) edge(corners[a], corners[b], 0.95);
    if (this.look.pictures) drawing.pictures.push({ clip, view, corners });
    if (clip.moving[view]) for (let t = 1; t < clip.frames; t++) edge(clip.poses[view][t - 1].slice(12, 15), clip.poses[view][t].slice(12, 15), t <= frame ? 0.9 : 0.3);
  }

  // Words over the picture: what each panel shows, and the cameras' names.
  tag() {
    const used = new Set();
    for (const [number, panel] of this.panels.entries()) {
      this.place(used, `panel-${number}-${panel.clips.map((clip) => clip.index)}`, panel.left + 10, panel.top + 10, () => element("div", { class: "what" }, ...panel.clips.map((clip) => this.badge(clip)))).style.maxWidth = `${panel.width - 20}px`;
      if (this.look.cameras) this.name(used, number, panel, panel.clips[0]);
      const base = project(panel, [0, 0, 0]), relative = panel.clips.some((clip) => clip.scale === "relative");
      if (base) this.place(used, `base-${number}-${relative}`, base[0], base[1], () => element("span", { class: "camera" }, relative ? "base" : "base, axes 10 cm"));
    }
    for (const [key, node] of this.tags) if (!used.has(key)) node.remove(), this.tags.delete(key);
    for (const clip of this.look.clips) {
      const [frame] = this.frames.get(clip) ?? [0];
      for (const node of this.labels.querySelectorAll(`[data-clip="${clip.index}"]`)) node.textContent = whichFrame(clip, frame);
    }
  }

  badge(clip) {
    return element("div", { class: "badge", style: `--clip: ${clip.colour}` }, element("b", { class: clip.origin }, ORIGINS[clip.origin]),
      clip.label === clip.origin || clip.label === "true" ? "" : element("span", { class: "label" }, clip.label), element("span", { class: clip.scale }, SCALES[clip.scale]), element("span", { "data-clip": clip.index }));
  }

  name(used, number, panel, clip) {
    const frame = this.frames.get(clip)?.[0] ?? 0;
    clip.cameras.forEach((name, view) => {
      if (!this.look.views.has(name)) return;
      const at = project(panel, clip.poses[view][frame].slice(12, 15));
      if (at) this.place(used, `camera-${number}-${clip.index}-${view}`, at[0], at[1], () => element("span", { class: "camera" }, name));
    });
  }

  place(used, key, left, top, make) {
    used.add(key);
    if (!this.tags.has(key)) {
      this.tags.set(key, make());
      this.labels.append(this.tags.get(key));
    }
    const tag = this.tags.get(key);
    tag.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
    return tag;
  }

  // Looks from where a camera stands.
  stand(clip, view) {
    const [frame] = this.frames.get(clip), pose = clip.poses[view][frame], eye = [...pose.slice(12, 15)], forward = [...pose.slice(8, 11)];
    const ahead = dot(add(this.orbit.start.target, eye, -1), forward);
    this.orbit.stand(eye, forward, Math.max(0.15, ahead));
  }

  // Brings the point under the pointer to the middle, and turns about it from now on.
  centre(event) {
    const { left, top } = this.canvas.getBoundingClientRect(), at = [event.clientX - left, event.clientY - top];
    const panel = this.panels.find((p) => at[0] >= p.left && at[0] < p.left + p.width && at[1] >= p.top && at[1] < p.top + p.height);
    let best = null;
    for (const clip of panel?.clips ?? []) {
      const [frame, moment] = this.frames.get(clip);
      moment.forEach(({ codes, flags }, view) => {
        if (this.look.views.has(clip.cameras[view])) best = nearestHit(panel, at, clip, view, frame, codes, flags, this.look.box, best);
      });
    }
    if (best) {
      this.orbit.touched = true;
      this.orbit.goal.target = best.point;
      this.redraw();
    }
  }

  key(event) {
    const turns = { ArrowLeft: [0.12, 0], ArrowRight: [-0.12, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    if (event.shiftKey && turns[event.key]) this.orbit.turn(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") this.orbit.zoom(0.87);
    else if (event.key === "-") this.orbit.zoom(1.15);
    else if (event.key === "0") this.orbit.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const viewNames = [...new Set(scene.clips.flatMap((clip) => clip.cameras))];

function viewColour(name) {
  return VIEW_COLOURS[viewNames.indexOf(name) % VIEW_COLOURS.length];
}

// Where a point is seen in a panel, in CSS pixels, or null.
function project(panel, [x, y, z]) {
  const m = panel.matrix, w = m[3] * x + m[7] * y + m[11] * z + m[15];
  const [u, v] = [0, 1].map((k) => (m[k] * x + m[4 + k] * y + m[8 + k] * z + m[12 + k]) / w);
  if (w <= 0 || Math.abs(u) > 1 || Math.abs(v) > 1) return null;
  return [panel.left + (panel.width * (1 + u)) / 2, panel.top + (panel.height * (1 - v)) / 2, w];
}

// The foremost point within a few pixels of a place.
function nearestHit(panel, at, clip, view, frame, codes, flags, box, best) {
  const pose = clip.poses[view][frame], [fx, fy, cx, cy] = clip.intrinsics[view][frame];
  for (let i = 0; i < codes.length; i++) {
    if (!codes[i] || !(flags[i] & 1)) continue;
    const depth = depthOf(clip, codes[i]), x = (((i % clip.width) + 0.5 - cx) / fx) * depth, y = ((Math.floor(i / clip.width) + 0.5 - cy) / fy) * depth;
    const point = [0, 1, 2].map((k) => pose[k] * x + pose[4 + k] * y + pose[8 + k] * depth + pose[12 + k]);
    if (point.some((p, k) => p < box[0][k] || p > box[1][k])) continue;
    const seen = project(panel, point);
    if (seen && Math.hypot(seen[0] - at[0], seen[1] - at[1]) < 6 && (!best || seen[2] < best.away)) best = { point, away: seen[2] };
  }
  return best;
}

function whichFrame(clip, frame) {
  if (clip.origin === "imagined" && frame === 0) return "frame 0, given";
  const chunk = clip.seams.filter((seam) => frame > seam).length + 1;
  return `frame ${frame} of ${clip.frames - 1}` + (clip.seams.length ? `, chunk ${chunk}` : "");
}
