// Both add to what is already there: without scripts the tables and the crops are all shown.
"use strict";

// Tables: a click on a column's head sorts the rows by it, numbers by value.
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 3) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      const value = (row) => (text(row) === "" ? NaN : Number(text(row).replaceAll(",", "")));
      const numbers = rows.every((row) => text(row) === "" || !Number.isNaN(value(row)));
      const order = (a, b) => {
        if (!text(a) || !text(b)) return (text(a) ? 0 : 1) - (text(b) ? 0 : 1); // empty cells last
        return sign * (numbers ? value(a) - value(b) : text(a).localeCompare(text(b), "en", { numeric: true }));
      };
      table.tBodies[0].append(...[...rows].sort(order));
    });
  });
}

// Crops: two of the images of the strip above each other, the left one cut off where the range stands.
for (const crops of document.querySelectorAll(".crops")) {
  const slider = crops.querySelector(".slider");
  const stack = slider.querySelector(".stack");
  const range = slider.querySelector("input");
  const choices = [...slider.querySelectorAll("select")];
  const images = [...crops.querySelectorAll(".strip img")];
  const show = () => {
    stack.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % ${choices[0].value}, the rest ${choices[1].value}`);
  };
  const choose = () => {
    choices.forEach((choice, n) => {
      const image = images[choice.selectedIndex].cloneNode();
      image.alt = "";
      image.draggable = false;
      stack.querySelector(n ? ".right" : ".left").replaceChildren(image);
    });
    show();
  };
  const drag = (event) => {
    if (!event.buttons) return;
    const box = stack.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    show();
  };
  choices.forEach((choice) => choice.addEventListener("change", choose));
  range.addEventListener("input", show);
  stack.addEventListener("pointerdown", drag);
  stack.addEventListener("pointermove", drag);
  choose();
  slider.hidden = false;
}
