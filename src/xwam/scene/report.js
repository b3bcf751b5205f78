// Every canvas of a dream shows the same frame of its sheet (frames side by side); one slider drives them all, and the 4D scene.
for (const dream of document.querySelectorAll(".dream")) {
  const slider = dream.querySelector("input"), button = dream.querySelector("button"), clock = dream.querySelector("output");
  const views = [...dream.querySelectorAll("canvas")].map((canvas) => {
    const sheet = new Image();
    sheet.onload = () => draw(canvas, sheet);
    sheet.src = canvas.dataset.sheet;
    return [canvas, sheet];
  });
  const period = Number(dream.dataset.period), scene = dream.querySelector("iframe");
  let timer = null;

  function draw(canvas, sheet) {
    const { width, height } = canvas;
    canvas.getContext("2d").drawImage(sheet, slider.value * width, 0, width, height, 0, 0, width, height);
  }
  function show() {
    clock.value = (slider.value * period).toFixed(1) + " s" + (slider.value === "0" ? " (given)" : "");
    for (const [canvas, sheet] of views) if (sheet.complete) draw(canvas, sheet);
    scene?.contentWindow.postMessage({ tick: Number(slider.value) }, "*");
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(next, Math.max(period, 0.1) * 1000) : null;
    button.textContent = on ? "Pause" : "Play";
  }
  function next() {
    slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
    show();
  }

  slider.addEventListener("input", () => { play(false); show(); });
  button.addEventListener("click", () => play(timer === null));
  scene?.addEventListener("load", show);
  show();
  play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}
