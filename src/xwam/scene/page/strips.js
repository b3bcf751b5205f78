// The cameras' pictures, colour and depth, of every clip that is shown, a card a camera.

// Text from a clip becomes text nodes, never markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const ORIGINS = { imagined: "imagined", recorded: "true, recorded", simulated: "true, simulated" };
const SCALES = { metric: "metric depth", aligned: "aligned depth", relative: "relative depth, no metres" };

function lengthText(clips, length) {
  return clips.some((clip) => clip.scale === "relative") ? length.toFixed(2) : length.toFixed(2) + " m";
}

// Near is bright, far is dark, unknown is grey: core/pictures.py has the same colours.
const DEPTH_COLOURS = scene.depthColours.map((hex) => (255 << 24) | (parseInt(hex.slice(4, 6), 16) << 16) | (parseInt(hex.slice(2, 4), 16) << 8) | parseInt(hex.slice(0, 2), 16));
const UNKNOWN_COLOUR = (255 << 24) | 0x808080;

class Strips {
  constructor(section) {
    this.section = section;
    this.cards = new Map();
  }

  // Makes the cards anew, for these clips and cameras.
  build(clips, names) {
    this.cards.clear();
    this.section.replaceChildren(...names.map((name) => this.card(clips.filter((clip) => clip.cameras.includes(name)), name)));
    this.section.hidden = !clips.length;
  }

  card(clips, name) {
    const ranges = clips.map((clip) => clip.depthRanges[clip.cameras.indexOf(name)]);
    const near = Math.min(...ranges.map((range) => range[0])), far = Math.max(...ranges.map((range) => range[1]));
    const columns = clips.map((clip) => {
      const [rgb, depth] = ["colour", "depth"].map((kind) =>
        element("canvas", { width: clip.width, height: clip.height, role: "img", "aria-label": `${kind} of camera ${name}, ${clip.label}, ${ORIGINS[clip.origin]}` }));
      this.cards.set(`${clip.index}-${clip.cameras.indexOf(name)}`, { rgb: rgb.getContext("2d"), depth: depth.getContext("2d"), colours: this.colours(clip, near, far) });
      return element("div", { class: "column" }, element("b", { style: `--clip: ${clip.colour}` }, clip.label), rgb, depth);
    });
    const bar = element("i", { style: `background: linear-gradient(to right, ${scene.depthColours.filter((_, k) => k % 15 === 0).map((hex) => "#" + hex).join()})` });
    return element("figure", { class: "card" }, element("figcaption", {}, name), element("div", { class: "columns" }, ...columns),
      element("div", { class: "scale" }, lengthText(clips, near), bar, lengthText(clips, far)));
  }

  // The colour of every code, as RGBA words.
  colours(clip, near, far) {
    return Uint32Array.from({ length: 65536 }, (_, code) => {
      const share = (depthOf(clip, code) - near) / (far - near);
      return code ? DEPTH_COLOURS[Math.round((DEPTH_COLOURS.length - 1) * Math.max(0, Math.min(1, share)))] : UNKNOWN_COLOUR;
    });
  }

  draw(clip, moment) {
    moment.forEach(({ image, codes }, view) => {
      const card = this.cards.get(`${clip.index}-${view}`);
      if (!card) return;
      card.rgb.drawImage(image, 0, 0);
      const pixels = card.depth.createImageData(clip.width, clip.height), words = new Uint32Array(pixels.data.buffer);
      for (let i = 0; i < codes.length; i++) words[i] = card.colours[codes[i]];
      card.depth.putImageData(pixels, 0, 0);
    });
  }
}
