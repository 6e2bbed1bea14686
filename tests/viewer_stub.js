// Runs the page's viewer on a document of two elements, and prints what it paints.
"use strict";
const fs = require("fs");
const [script, data] = process.argv.slice(2).map((path) => fs.readFileSync(path, "utf8"));
const listeners = {};
const arcs = [];
let lines = 0;
const context = {
  createRadialGradient: () => ({ addColorStop: () => undefined }),
  beginPath: () => undefined, moveTo: () => undefined, stroke: () => undefined, fill: () => undefined,
  clearRect: () => { arcs.length = 0; lines = 0; },
  lineTo: () => { lines += 1; },
  arc: (x, y) => arcs.push([x, y]),
};
const made = {};
const document = {
  createElement: (name) => {
    const element = {
      children: [], selectedIndex: 0,
      append: (...several) => element.children.push(...several),
      addEventListener: (event, act) => { listeners[`${element.textContent || name}:${event}`] = act; },
      getContext: () => context, setPointerCapture: () => undefined,
    };
    made[name] = element;
    return element;
  },
  querySelectorAll: () => [{ querySelector: () => ({ textContent: data }), prepend: () => undefined }],
};
new Function("document", script)(document);
const told = () => ({ text: made.span.textContent, lines, arcs: arcs.map((at) => at.slice()) });
const first = told();
listeners["›:click"]();
const second = told();
listeners["‹:click"]();
const back = told();
listeners["canvas:pointermove"]({ buttons: 1, movementX: 50, movementY: 20 });
const turned = told();
made.select.selectedIndex = 1;
listeners["select:change"]();
console.log(JSON.stringify({ first, second, back, turned, other: told() }));
