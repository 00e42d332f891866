// Keeps the page as it would be if it were loaded anew: asks every two seconds, puts changed parts in their places.
"use strict";
(() => {
  const every = 2000;
  const words = document.getElementById("live-words");
  const note = document.getElementById("live");
  let tag = null;

  const clock = () => new Date().toISOString().slice(11, 19) + " UTC";

  function inUse(part) {
    const chosen = document.getSelection();
    const marked = chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode);
    const held = document.activeElement;
    return marked || (held && part.contains(held) && held.matches("input, textarea, button"));
  }

  function replace(part, fresh) {
    const open = [...part.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...part.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
    const links = [...part.querySelectorAll("a, summary, [tabindex]")];
    const focus = links.indexOf(document.activeElement);
    part.className = fresh.className;
    part.replaceChildren(...fresh.childNodes);
    part.querySelectorAll("details").forEach((each, at) => { each.open = Boolean(open[at]); });
    part.querySelectorAll(".scroll").forEach((each, at) => { if (scrolled[at]) each.scrollTo(...scrolled[at]); });
    if (focus >= 0) part.querySelectorAll("a, summary, [tabindex]")[focus]?.focus({ preventScroll: true });
  }

  function show(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    document.title = fresh.title;
    const old = [...document.querySelectorAll("[data-live]")];
    const now = [...fresh.querySelectorAll("[data-live]")];
    if (old.map((each) => each.id).join() !== now.map((each) => each.id).join()) return location.reload();
    old.forEach((part, at) => {
      if (part.innerHTML === now[at].innerHTML && part.className === now[at].className) return;
      if (inUse(part)) tag = null;
      else replace(part, now[at]);
    });
  }

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, {
          headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", signal: AbortSignal.timeout(15000),
        });
        if (answer.redirected) return location.reload();
        if (answer.status === 200) {
          tag = answer.headers.get("ETag");
          show(await answer.text());
        } else if (answer.status !== 304) throw new Error(answer.status);
        note.className = "live on";
        words.textContent = "Live";
        note.title = "As of " + clock();
      } catch {
        if (!note.classList.contains("lost")) words.textContent = "No answer since " + clock() + ": what you see is old. Trying again.";
        note.className = "live lost";
      }
    }
    setTimeout(look, every);
  }
  setTimeout(look, every);
})();
