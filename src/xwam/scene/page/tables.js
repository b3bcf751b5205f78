// Numbers and words under the pictures: scores beside each other, and where every clip comes from.

function card(title, table) {
  return element("div", { class: "card" }, element("h2", {}, title), element("div", { class: "scroll" }, table));
}

function heads(clips) {
  return clips.map((clip) => element("th", { scope: "col" }, element("span", { class: "key", style: `--clip: ${clip.colour}` }, clip.label)));
}

// Each score with its difference from the first clip that has it; the best is bold where it is known which way is better.
function scoreTable(section) {
  section.hidden = !scene.scores.length;
  const scored = scene.clips.filter((_, k) => scene.scores.some(({ values }) => values[k] != null));
  const still = scene.scores.some(({ baseline }) => baseline != null);
  const rows = scene.scores.map(({ name, unit, better, values, baseline }) => {
    const known = [...values, baseline].filter((value) => value != null), first = values.find((value) => value != null);
    const best = known.length < 2 || !better ? null : better === "higher" ? Math.max(...known) : Math.min(...known);
    const cell = (value, change) => element("td", { class: value != null && value === best ? "best" : "" }, value == null ? "–" : short(value), change ? element("small", {}, ` ${change > 0 ? "+" : "−"}${short(Math.abs(change))}`) : "");
    const cells = scored.map((clip) => values[clip.index]).map((value) => cell(value, value == null ? 0 : value - first));
    if (still) cells.push(cell(baseline, 0));
    const way = better === "higher" ? " ↑" : better === "lower" ? " ↓" : "";
    return element("tr", {}, element("th", { scope: "row" }, name + (unit ? `, ${unit}` : "") + way), ...cells);
  });
  const top = element("tr", {}, element("th"), ...heads(scored), still ? element("th", { scope: "col" }, "nothing moves") : "");
  section.replaceChildren(card("Scores", element("table", {}, element("thead", {}, top), element("tbody", {}, ...rows))));
}

// What all have alike stands once.
function cells(texts) {
  if (texts.every((text) => text === texts[0])) return [element("td", { colspan: texts.length }, texts[0])];
  return texts.map((text) => element("td", {}, text));
}

function told(value) {
  return typeof value === "number" && !Number.isInteger(value) ? short(value) : String(value ?? "");
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
  for (const key of new Set(scene.clips.flatMap((clip) => Object.keys(clip.about)))) facts[key.replaceAll("_", " ")] ??= (clip) => told(clip.about[key]);
  const rows = Object.entries(facts).filter(([, of]) => scene.clips.some((clip) => of(clip)))
    .map(([name, of]) => element("tr", {}, element("th", { scope: "row" }, name), ...cells(scene.clips.map((clip) => of(clip) || "–"))));
  section.replaceChildren(card("What is shown", element("table", {}, element("thead", {}, element("tr", {}, element("th"), ...heads(scene.clips))), element("tbody", {}, ...rows))));
}
