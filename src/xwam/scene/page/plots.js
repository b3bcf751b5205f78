// Actions and states over time, a plot an entry, with a line at the present; a click goes to that time.

const PLOT = { left: 52, right: 296, top: 8, bottom: 84, height: 102 };

function drawn(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function short(value) {
  return Math.abs(value) >= 1000 || (value && Math.abs(value) < 0.001) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

class Plots {
  constructor(section, seek) {
    this.section = section;
    this.seek = seek;
  }

  build(clips, end) {
    this.end = end;
    this.plots = [];
    this.section.replaceChildren(...["actions", "states"].map((kind) => this.group(kind, clips)).filter(Boolean));
    this.section.hidden = !this.section.children.length;
  }

  group(kind, clips) {
    const names = [...new Set(clips.flatMap((clip) => clip[kind]?.names ?? []))];
    if (!names.length) return null;
    const keys = clips.filter((clip) => clip[kind]).map((clip) => element("span", { class: "key", style: `--clip: ${clip.colour}` }, clip.label));
    return element("details", { class: "card", open: names.length <= 16 }, element("summary", {}, element("h2", {}, kind === "actions" ? "Actions" : "States"), ...keys),
      element("div", { class: "plots" }, ...names.map((name) => this.plot(kind, clips, name))));
  }

  plot(kind, clips, name) {
    const curves = clips.filter((clip) => clip[kind]?.names.includes(name)).map((clip) => {
      const { names, units, values, period } = clip[kind], entry = names.indexOf(name);
      return { clip, unit: units[entry] ?? "", period, values: values.map((row) => row[entry]) };
    });
    const all = curves.flatMap((curve) => curve.values).filter(Number.isFinite);
    let low = Math.min(...all), high = Math.max(...all);
    if (!(high - low > 1e-9)) [low, high] = [low - 0.5, low + 0.5];
    const x = (time) => PLOT.left + ((PLOT.right - PLOT.left) * time) / Math.max(this.end, 1e-9);
    const y = (value) => PLOT.bottom - ((PLOT.bottom - PLOT.top) * (value - low)) / (high - low);
    const lines = curves.map(({ clip, values, period }) => drawn("polyline", { style: `--clip: ${clip.colour}`, class: clip.origin, points: values.map((value, k) => `${x(k * period).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
    const text = (at, [left, top], anchor) => drawn("text", { x: left, y: top, "text-anchor": anchor }, at);
    const cursor = drawn("line", { class: "cursor", y1: PLOT.top - 4, y2: PLOT.bottom });
    const picture = drawn("svg", { viewBox: `0 0 300 ${PLOT.height}`, "aria-hidden": "true" },
      drawn("path", { class: "axis", d: `M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}` }), ...lines, cursor,
      text(short(high), [PLOT.left - 5, PLOT.top + 4], "end"), text(short(low), [PLOT.left - 5, PLOT.bottom + 2], "end"),
      text("0 s", [PLOT.left, PLOT.bottom + 14], "start"), text(`${this.end.toFixed(2)} s`, [PLOT.right, PLOT.bottom + 14], "end"));
    picture.addEventListener("pointerdown", (event) => {
      const { left, width } = picture.getBoundingClientRect();
      this.seek((((event.clientX - left) * 300) / width - PLOT.left) / (PLOT.right - PLOT.left) * this.end);
    });
    const value = element("output");
    this.plots.push({ cursor, value, curves, x });
    const unit = curves[0].unit ? element("span", {}, ` [${curves[0].unit}]`) : "";
    return element("figure", {}, element("figcaption", {}, element("span", { class: "name" }, name, unit), value), picture);
  }

  draw(time) {
    for (const { cursor, value, curves, x } of this.plots) {
      cursor.setAttribute("x1", x(time));
      cursor.setAttribute("x2", x(time));
      value.replaceChildren(...curves.map((curve) => {
        const k = Math.min(curve.values.length - 1, Math.floor(time / curve.period + 1e-6));
        return element("b", { style: `--clip: ${curve.clip.colour}` }, Number.isFinite(curve.values[k]) ? short(curve.values[k]) : "–");
      }));
    }
  }
}
