"use strict";
// What the page holds: a description as JSON, and for every clip, view and frame blobs: a JPEG, depth with flags, and
// where flow is known streaks of what moves.
// In a page from disk a blob is base64 in an element; in a live one it comes from the server of the page itself.

const scene = JSON.parse(document.getElementById("scene").textContent);
const KEPT_BYTES = 400e6;

async function blob(name) {
  if (scene.live) {
    const answer = await fetch("blob/" + name);
    if (!answer.ok) throw new Error(`the server has no ${name}: is xwam view still running?`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  return Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undoes page_data.pack: planes of high and low bytes of twice differenced codes, then flags.
function unpack(bytes, height, width) {
  const count = height * width, codes = new Uint16Array(count);
  for (let i = 0; i < count; i++) codes[i] = (bytes[i] << 8) | bytes[count + i];
  for (let i = width; i < count; i++) codes[i] += codes[i - width];
  for (let row = 0; row < count; row += width) for (let i = row + 1; i < row + width; i++) codes[i] += codes[i - 1];
  return { codes, flags: bytes.slice(2 * count) };
}

// Depth in metres, or in units of its own where it is relative; 0 is unknown.
function depthOf(clip, code) {
  return code ? clip.nearest * Math.exp((code - 1) / scene.stepsPerE) : 0;
}

// Frames of clips, decoded when they are asked for and kept while there is room.
class Moments {
  constructor() {
    this.kept = new Map();
    const bytes = Math.max(...scene.clips.map((clip) => clip.cameras.length * clip.height * clip.width * 7));
    this.room = Math.max(2 * scene.clips.length, Math.floor(KEPT_BYTES / bytes));
  }

  // A frame of all views, or a promise of it.
  get(clip, frame) {
    const key = `${clip.index}-${frame}`;
    if (!this.kept.has(key)) {
      if (this.kept.size >= this.room) this.kept.delete(this.kept.keys().next().value);
      const promise = Promise.all(clip.cameras.map((_, view) => this.decode(clip, view, frame)));
      this.kept.set(key, promise);
      promise.then((moment) => this.kept.has(key) && this.kept.set(key, moment), () => this.kept.delete(key));
    }
    return this.kept.get(key);
  }

  async decode(clip, view, frame) {
    const place = `${clip.index}-${view}-${frame}`;
    const [picture, depth, flow] = await Promise.all([blob("rgb-" + place), blob("depth-" + place).then(inflate), clip.flow ? blob("flow-" + place) : new Uint8Array()]);
    const image = await createImageBitmap(new Blob([picture], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
    return { image, streaks: new Float32Array(flow.buffer), ...unpack(depth, clip.height, clip.width) };
  }
}
