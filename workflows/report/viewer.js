// Ball-and-stick view of a few configurations on a canvas: drag turns, the wheel zooms, the slider steps.
"use strict";
for (const figure of document.querySelectorAll("figure.viewer")) {
  const molecule = JSON.parse(figure.querySelector("script").textContent);
  const make = (name, values) => Object.assign(document.createElement(name), values);
  const bar = make("div", { className: "bar" });
  const origin = make("select", { title: "where the configurations are from" });
  for (const set of molecule.sets) origin.append(make("option", { textContent: set.label }));
  const back = make("button", { type: "button", textContent: "‹", title: "one configuration back" });
  const slider = make("input", { type: "range", min: 0, step: 1, value: 0, title: "which configuration" });
  const on = make("button", { type: "button", textContent: "›", title: "next configuration" });
  const told = make("span", {});
  const canvas = make("canvas", { width: 1080, height: 720 });
  bar.append(origin, back, slider, on, told);
  figure.prepend(bar, canvas);
  const context = canvas.getContext("2d");
  let turn = [1, 0, 0, 0, 1, 0, 0, 0, 1];
  let zoom = 1;

  const frames = () => molecule.sets[origin.selectedIndex].frames;

  function rotate(across, down) {
    const [a, b, c, d] = [Math.cos(across), Math.sin(across), Math.cos(down), Math.sin(down)];
    // About the vertical of the screen, then about its horizontal.
    const by = [a, 0, b, b * d, c, -a * d, -b * c, d, a * c];
    const made = [];
    for (let row = 0; row < 3; row++)
      for (let column = 0; column < 3; column++)
        made.push(by[3 * row] * turn[column] + by[3 * row + 1] * turn[3 + column] + by[3 * row + 2] * turn[6 + column]);
    turn = made;
  }

  function projected(frame) {
    const scale = (0.47 * canvas.height * zoom) / molecule.radius;
    const points = [];
    for (let atom = 0; atom < molecule.colours.length; atom++) {
      const [x, y, z] = frame.slice(3 * atom, 3 * atom + 3);
      points.push({
        atom,
        x: canvas.width / 2 + scale * (turn[0] * x + turn[1] * y + turn[2] * z),
        y: canvas.height / 2 - scale * (turn[3] * x + turn[4] * y + turn[5] * z),
        z: turn[6] * x + turn[7] * y + turn[8] * z,
        size: scale * molecule.sizes[atom],
      });
    }
    return points;
  }

  function stick(from, to) {
    const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
    for (const end of [from, to]) {
      context.strokeStyle = molecule.colours[end.atom];
      context.lineWidth = Math.max(1.5, 0.45 * Math.min(from.size, to.size));
      context.beginPath();
      context.moveTo(middle.x, middle.y);
      context.lineTo(end.x, end.y);
      context.stroke();
    }
  }

  function ball(point) {
    const light = [point.x - 0.35 * point.size, point.y - 0.35 * point.size];
    const shade = context.createRadialGradient(...light, 0.1 * point.size, point.x, point.y, point.size);
    shade.addColorStop(0, "#ffffff");
    shade.addColorStop(0.45, molecule.colours[point.atom]);
    shade.addColorStop(1, "#1d2430");
    context.fillStyle = shade;
    context.beginPath();
    context.arc(point.x, point.y, point.size, 0, 2 * Math.PI);
    context.fill();
  }

  function draw() {
    const shown = Number(slider.value);
    const points = projected(frames()[shown]);
    const parts = points.map((point) => ({ depth: point.z, paint: () => ball(point) }));
    for (const [first, second] of molecule.bonds) {
      const ends = [points[first], points[second]];
      parts.push({ depth: (ends[0].z + ends[1].z) / 2, paint: () => stick(...ends) });
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.lineCap = "round";
    for (const part of parts.sort((one, other) => one.depth - other.depth)) part.paint();
    told.textContent = `${shown + 1} of ${frames().length}`;
  }

  function step(by) {
    const count = frames().length;
    slider.value = (Number(slider.value) + by + count) % count;
    draw();
  }

  function choose() {
    slider.max = frames().length - 1;
    slider.value = Math.min(Number(slider.value), frames().length - 1);
    draw();
  }

  origin.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    rotate(0.01 * event.movementX, 0.01 * event.movementY);
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.min(8, Math.max(0.3, zoom * Math.exp(-0.001 * event.deltaY)));
    draw();
  }, { passive: false });
  choose();
}
