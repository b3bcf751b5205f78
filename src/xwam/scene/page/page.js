// The clock that drives everything, and the controls.

const everywhere = [[-1e6, -1e6, -1e6], [1e6, 1e6, 1e6]];
scene.clips.forEach((clip, index) => {
  clip.index = index;
  clip.poses = clip.poses.map((times) => times.map((rows) => Float32Array.from(rows)));
});

// What is shown; every control changes this, and then calls `renew` or `stage.redraw`.
const look = {
  clips: [...scene.clips], views: new Set(viewNames), layers: 7, overlaid: false, colour: "seen", pointSize: 1.4,
  surface: true, box: scene.bounds, cameras: true, pictures: true, shading: true, motion: false,
};
const period = Math.min(...scene.clips.map((clip) => clip.period));
const ticks = Math.max(...scene.clips.map((clip) => Math.round(((clip.frames - 1) * clip.period) / period)));
const SPEEDS = [0.05, 0.1, 0.25, 0.5, 1, 2];
const SHORTEST_S = 2.5; // at first, a clip plays no faster than in this time
const REST_S = 0.9; // at the end, before it begins again

const find = (id) => document.getElementById(id);
const slider = find("time"), playButton = find("play"), speed = find("speed");
const moments = new Moments(), stage = new Stage(find("stage"), look, moments), strips = new Strips(find("strips"));
const plots = new Plots(find("plots"), (time) => { play(false); go(Math.round(time / period)); });
let tick = 0, playing = false, latest = 0, pending = false, since = 0;

function frameOf(clip) {
  return Math.min(clip.frames - 1, Math.floor((tick * period) / clip.period + 1e-6));
}

// Shows a moment; if it must be fetched first, only the latest that was asked for is shown.
async function go(to) {
  tick = Math.max(0, Math.min(ticks, to));
  slider.value = tick;
  slider.setAttribute("aria-valuetext", `${(tick * period).toFixed(2)} seconds`);
  find("now").textContent = `${(tick * period).toFixed(2)} s`;
  plots.draw(tick * period);
  const turn = ++latest, clips = look.clips, frames = clips.map(frameOf);
  pending = true;
  try {
    let loaded = clips.map((clip, k) => moments.get(clip, frames[k]));
    if (loaded.some((moment) => moment instanceof Promise)) loaded = await Promise.all(loaded);
    if (turn !== latest) return;
    clips.forEach((clip, k) => {
      stage.show(clip, frames[k], loaded[k]);
      strips.draw(clip, loaded[k]);
    });
    for (const clip of clips) moments.get(clip, Math.min(clip.frames - 1, frameOf(clip) + 1));
    document.body.dataset.shown = tick;
  } catch (error) {
    find("trouble").textContent = error.message;
    find("trouble").hidden = false;
  }
  if (turn === latest) pending = false;
}

function play(on) {
  playing = on && ticks > 0;
  playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
  playButton.classList.toggle("playing", playing);
  if (!playing) return;
  since = performance.now();
  requestAnimationFrame(advance);
}

function advance(now) {
  if (!playing) return;
  const wait = (period * 1000) / Number(speed.value), due = tick === ticks ? Math.max(wait, 1000 * REST_S) : wait;
  if (!pending && now - since >= due) {
    since = tick === ticks || now - since > 3 * wait ? now : since + wait;
    go(tick === ticks ? 0 : tick + Math.max(1, Math.floor(16 / wait)));
  }
  requestAnimationFrame(advance);
}

// After clips went on or off.
function renew() {
  strips.build(look.clips, viewNames);
  plots.build(look.clips, ticks * period);
  go(tick);
}

// ---- controls

function toggle(text, on, change, colour) {
  const button = element("button", { type: "button", class: "toggle", "aria-pressed": String(on), style: colour ? `--clip: ${colour}` : null }, text);
  button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    change(pressed);
    stage.redraw();
  });
  return button;
}

function group(title, ...children) {
  return element("fieldset", {}, element("legend", {}, title), ...children);
}

function choice(label, options, change) {
  const select = element("select", { "aria-label": label, onchange: () => { change(select.value); stage.redraw(); } }, ...options.map(([value, text]) => element("option", { value }, text)));
  return element("label", {}, label, select);
}

function clipGroup() {
  const shown = new Set(scene.clips);
  const buttons = scene.clips.map((clip) => toggle(clip.label, true, (on) => {
    on ? shown.add(clip) : shown.delete(clip);
    look.clips = scene.clips.filter((one) => shown.has(one));
    renew();
  }, clip.colour));
  const overlay = choice("Arrange", [["", "side by side"], ["overlaid", "one over the other"]], (value) => { look.overlaid = value !== ""; });
  return group("Clips", element("div", { class: "toggles" }, ...buttons), overlay);
}

function viewGroup() {
  const buttons = viewNames.map((name) => toggle(name, true, (on) => look.views[on ? "add" : "delete"](name), viewColour(name)));
  return group("Views", element("div", { class: "toggles" }, ...buttons));
}

function layerGroup() {
  const buttons = LAYERS.map((name, bit) => toggle(name, true, (on) => { look.layers = on ? look.layers | (1 << bit) : look.layers & ~(1 << bit); }));
  return group("Layers", element("div", { class: "toggles" }, ...buttons));
}

function pointGroup() {
  const size = element("input", { type: "range", min: 0.5, max: 5, step: 0.1, value: look.pointSize, oninput: () => { look.pointSize = Number(size.value); stage.redraw(); } });
  const colours = [["seen", "as seen"], ["view", "by view"]];
  if (scene.clips.length > 1) colours.push(["clip", "by clip"]);
  if (scene.clips.some((clip) => clip.layers)) colours.push(["layer", "by layer"]);
  return group("Points", element("label", {}, "Size", size), choice("Colour", colours, (value) => { look.colour = value; }),
    element("div", { class: "toggles" },
      toggle("hide flying pixels", true, (on) => { look.surface = on; }),
      toggle("workspace only", true, (on) => { look.box = on ? scene.bounds : everywhere; }),
      toggle("shading", true, (on) => { look.shading = on; }),
      ...(scene.clips.some((clip) => clip.flow) ? [toggle(`motion, ${STREAK_FRAMES} frames long`, false, (on) => { look.motion = on; })] : [])));
}

function cameraGroup() {
  const stands = viewNames.map((name) => element("button", { type: "button", onclick: () => {
    const clip = look.clips.find((one) => one.cameras.includes(name));
    if (clip) stage.stand(clip, clip.cameras.indexOf(name));
  } }, name));
  return group("Cameras", element("div", { class: "toggles" },
    toggle("frustums", true, (on) => { look.cameras = on; }), toggle("pictures in them", true, (on) => { look.pictures = on; })),
    element("div", { class: "stands" }, "Look from ", ...stands, element("button", { type: "button", onclick: () => stage.orbit.reset() }, "start")));
}

function buildPanel() {
  const groups = [scene.clips.length > 1 && clipGroup(), viewGroup(), scene.clips.some((clip) => clip.layers) && layerGroup(), pointGroup(), cameraGroup()];
  const wide = matchMedia("(min-width: 900px)"), settings = element("details", { open: wide.matches }, element("summary", {}, "Settings"), ...groups.filter(Boolean));
  wide.addEventListener("change", () => { settings.open = wide.matches; });
  find("panel").append(settings);
}

function buildClock() {
  slider.max = ticks;
  const first = SPEEDS.filter((s) => (ticks * period) / s >= SHORTEST_S).pop() ?? SPEEDS[0];
  speed.append(...SPEEDS.map((s) => element("option", { value: s, selected: s === Math.min(first, 1) }, s === 1 ? "1×, real time" : `${s}×`)));
  const place = (clip, frame) => `left: ${(100 * frame * clip.period) / Math.max(ticks * period, 1e-9)}%; --clip: ${clip.colour}`;
  for (const clip of scene.clips) find("marks").append(...clip.seams.map((seam) => element("i", { style: place(clip, seam), title: `${clip.label}: a new chunk begins at frame ${seam}` })));
  slider.addEventListener("input", () => { play(false); go(Number(slider.value)); });
  playButton.addEventListener("click", () => play(!playing));
  document.addEventListener("keydown", (event) => {
    const inControl = event.target.matches("button, select, summary, input, a") && event.target !== slider;
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || inControl) return;
    const steps = { ArrowRight: tick + 1, ArrowLeft: tick - 1, Home: 0, End: ticks };
    if (event.key === " ") play(!playing);
    else if (event.key in steps) { play(false); go(steps[event.key]); }
    else return;
    event.preventDefault();
  });
}

if (matchMedia("(pointer: coarse)").matches) find("hint").textContent = "drag to turn · two fingers to move and zoom · double-tap to centre";
find("instruction").textContent = `“${scene.instruction}”`;
find("instruction").hidden = !scene.instruction;
document.body.classList.toggle("alone", location.hash === "#stage"); // inside another page: the scene and the clock
// A page around this one may drive its clock, which then makes room.
addEventListener("message", ({ source, data }) => {
  if (source !== parent || !Number.isInteger(data?.tick)) return;
  document.body.classList.add("driven");
  play(false);
  go(data.tick);
});
buildPanel();
buildClock();
scoreTable(find("scores"));
aboutTable(find("about"));
renew();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches && location.hash !== "#still") play(true);
