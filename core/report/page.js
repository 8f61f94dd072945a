"use strict";
// Sort a table by its headings: numbers descending first, texts ascending first.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isNumber = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const falls = before ? before === "ascending" : isNumber;
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        return isNumber ? parseFloat(text.replaceAll(",", "")) : text;
      };
      const compare = (a, b) => {
        const [one, other] = falls ? [key(b), key(a)] : [key(a), key(b)];
        if (!isNumber) return one.localeCompare(other);
        // cells without a number last, in both orders
        if (isNaN(one) || isNaN(other)) return isNaN(key(a)) - isNaN(key(b));
        return one - other;
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    });
  });
}

// Mark tables that scroll sideways.
const places = [...document.querySelectorAll(".scroll:has(table)")];
const mark = () => {
  for (const place of places) place.classList.toggle("cut", place.scrollWidth > place.clientWidth);
};
window.addEventListener("resize", mark);
mark();
