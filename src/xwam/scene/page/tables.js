// Numbers and words under the pictures: scores beside each other, and where every clip comes from.

function card(title, table) {
  return element("div", { class: "card" }, element("h2", {}, title), element("div", { class: "scroll" }, table));
}

function heads() {
  return scene.clips.map((clip) => element("th", { scope: "col" }, element("span", { class: "key", style: `--clip: ${clip.colour}` }, clip.label)));
}

// Each score with its difference from the first clip that has it; the best is bold where a best is known.
function scoreTable(section) {
  section.hidden = !scene.scores.length;
  const still = scene.scores.some(({ baseline }) => baseline != null);
  const rows = scene.scores.map(({ name, unit, better, values, baseline }) => {
    const known = values.filter((value) => value != null);
    const best = known.length < 2 || !better ? null : better === "higher" ? Math.max(...known) : Math.min(...known);
    const first = values.findIndex((value) => value != null);
    const way = better === "higher" ? " ↑" : better === "lower" ? " ↓" : "";
    const cells = values.map((value, k) => {
      if (value == null) return element("td", {}, "–");
      const change = value - values[first];
      return element("td", { class: value === best ? "best" : "" }, short(value), k === first ? "" : element("small", {}, ` ${change > 0 ? "+" : change < 0 ? "−" : "±"}${short(Math.abs(change))}`));
    });
    if (still) cells.push(element("td", {}, baseline == null ? "–" : short(baseline)));
    return element("tr", {}, element("th", { scope: "row" }, name + (unit ? `, ${unit}` : "") + way), ...cells);
  });
  section.replaceChildren(card("Scores", element("table", {}, element("thead", {}, element("tr", {}, element("th"), ...heads(), still ? element("th", { scope: "col" }, "nothing moves") : "")), element("tbody", {}, ...rows))));
}

function aboutTable(section) {
  const facts = {
    origin: (clip) => ORIGINS[clip.origin],
    depth: (clip) => SCALES[clip.scale],
    "fit of aligned depth": (clip) => clip.alignments.join("; "),
    instruction: (clip) => clip.instruction,
    cameras: (clip) => clip.cameras.join(", "),
    images: (clip) => `${clip.height} × ${clip.width}`,
    frames: (clip) => `${clip.frames}, every ${short(clip.period)} s`,
    "chunks begin at frame": (clip) => (clip.seams.length ? [0, ...clip.seams].join(", ") : ""),
  };
  for (const key of new Set(scene.clips.flatMap((clip) => Object.keys(clip.about)))) facts[key] ??= (clip) => String(clip.about[key] ?? "");
  const rows = Object.entries(facts).filter(([, of]) => scene.clips.some((clip) => of(clip)))
    .map(([name, of]) => element("tr", {}, element("th", { scope: "row" }, name), ...scene.clips.map((clip) => element("td", {}, of(clip) || "–"))));
  section.replaceChildren(card("What is shown", element("table", {}, element("thead", {}, element("tr", {}, element("th"), ...heads())), element("tbody", {}, ...rows))));
}
