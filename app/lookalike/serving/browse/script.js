// The page works without this: it adds the arrow keys, "/", and a stand-in for photos that are not there.
"use strict";

for (const photo of document.querySelectorAll("img")) {
  const replace = () => {
    const none = document.createElement("span");
    none.className = "none";
    none.textContent = "no photo";
    photo.replaceWith(none);
  };
  photo.addEventListener("error", replace);
  if (photo.complete && photo.naturalWidth === 0) replace();
}

const cards = [...document.querySelectorAll(".cards a")];

// The card that is nearest to `from` in the row or column that an arrow key points to.
function next(from, key) {
  const here = from.getBoundingClientRect();
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1;
  let best = null;
  let least = Infinity;
  for (const card of cards) {
    const there = card.getBoundingClientRect();
    const across = there.left - here.left;
    const down = there.top - here.top;
    const ahead = sign * (sideways ? across : down);
    const aside = Math.abs(sideways ? down : across);
    const distance = ahead + 4 * aside;
    if (ahead > 1 && distance < least) [best, least] = [card, distance];
  }
  return best;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const at = document.activeElement;
  if (at.matches("input, select")) return;
  if (event.key === "/") {
    document.querySelector('input[name="product_id"]')?.select();
  } else if (event.key.startsWith("Arrow")) {
    if (!cards.includes(at)) return; // the page scrolls, as ever
    next(at, event.key)?.focus();
  } else {
    return;
  }
  event.preventDefault();
});
