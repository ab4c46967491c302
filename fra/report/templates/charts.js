// Shows values of a chart: those of the mark nearest to the pointer, or of the one selected with the arrow keys.
// The marks are invisible; their aria-label is the text, values separated by semicolons.
"use strict";
(() => {
  const reading = document.getElementById("reading");
  let shown = null;

  function hide() {
    if (shown) shown.classList.remove("shown");
    shown = null;
    reading.classList.remove("shown");
  }

  function show(mark) {
    if (mark === shown) return;
    hide();
    shown = mark;
    mark.classList.add("shown");
    reading.replaceChildren(...mark.getAttribute("aria-label").split("; ").map((text) => {
      const line = document.createElement("div");
      line.textContent = text;
      return line;
    }));
    reading.classList.add("shown");
    const at = mark.getBoundingClientRect();
    const size = reading.getBoundingClientRect();
    const right = at.right + 10 + size.width > document.documentElement.clientWidth;
    reading.style.left = `${Math.max(4, scrollX + (right ? at.left - 10 - size.width : at.right + 10))}px`;
    reading.style.top = `${scrollY + at.top + Math.max(0, at.height - size.height) / 4}px`;
  }

  // Marks that span the chart (lines at one x) differ in x only.
  function nearest(marks, x, y) {
    let best = null;
    let least = Infinity;
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      const dx = x - (box.left + box.right) / 2;
      const dy = box.height > 60 ? 0 : y - (box.top + box.bottom) / 2;
      const distance = dx * dx + dy * dy;
      if (distance < least) {
        least = distance;
        best = mark;
      }
    }
    return best;
  }

  for (const plot of document.querySelectorAll(".plot")) {
    const marks = [...plot.querySelectorAll("[aria-label]")];
    if (!marks.length) continue;
    plot.addEventListener("pointermove", (event) => show(nearest(marks, event.clientX, event.clientY)));
    plot.addEventListener("pointerdown", (event) => show(nearest(marks, event.clientX, event.clientY)));
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide(); // after a touch the values stay until the chart loses focus
    });
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const now = marks.indexOf(shown);
      const next = { ArrowRight: now + 1, ArrowLeft: now < 0 ? marks.length - 1 : now - 1, Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (next === undefined) return;
      event.preventDefault();
      show(marks[Math.min(marks.length - 1, Math.max(0, next))]);
    });
  }
})();
