// What pages gain from JavaScript: a running clock, choices saved as they are made, answers that survive a lost
// connection, a copy button, live progress. Every page works without it, and the server's word always counts.

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function send(address, body) {
  const response = await fetch(address, {
    method: "POST", body: new URLSearchParams(body), headers: { accept: "application/json" }, credentials: "same-origin",
  });
  if (!response.ok) throw Object.assign(new Error(`status ${response.status}`), { status: response.status });
  return response.json();
}

// The clock ---------------------------------------------------------------------------------------------------

const OVERTIME = "Time is up. Your answer still counts, at a reduced score.";

function runClock(timer, onOvertime) {
  const clock = timer.querySelector("[data-clock]");
  const bar = timer.parentElement.querySelector("progress");
  const announce = document.querySelector("[data-announce]");
  if (!clock) return () => {};
  // performance.now() does not jump when the learner's clock is set.
  let ends = performance.now() + 1000 * Number(timer.dataset.left);
  let last = Math.ceil(Number(timer.dataset.left));
  const warnings = [60, 30, 10];
  const tick = () => {
    const left = (ends - performance.now()) / 1000;
    const whole = Math.max(0, Math.ceil(left));
    clock.textContent = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
    bar.value = Math.max(0, left);
    const crossed = warnings.filter((at) => whole <= at && last > at);
    if (crossed.length) announce.textContent = `${Math.min(...crossed)} seconds left`;
    last = whole;
    if (left > -Number(timer.dataset.grace)) setTimeout(tick, 250);
    else {
      timer.textContent = OVERTIME;
      announce.textContent = OVERTIME;
      timer.parentElement.classList.add("over");
      onOvertime();
    }
  };
  tick();
  return (left) => { ends = performance.now() + 1000 * left; };
}

// A problem ---------------------------------------------------------------------------------------------------

function playProblem(article) {
  const timer = article.querySelector("[role=timer]");
  const form = article.querySelector("form[data-answer]");
  const answers = form ? keepAnswers(form) : null;
  const worth = article.querySelector("[data-worth]");
  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const response = await fetch(article.dataset.state, { cache: "no-store" });
      if (!response.ok) return;
      const state = await response.json();
      if (state.version !== article.dataset.version) { location.replace(location.pathname); return; }
      if (state.seconds_left) correct(state.seconds_left);
      if (worth) worth.textContent = state.worth;
      answers?.mark(state.chosen);
    } catch { /* no connection: the next look will tell */ }
  };
  const correct = timer ? runClock(timer, look) : () => {};
  if (form) {
    // Keys of single characters may act only while what they act on has the focus (WCAG 2.2, 2.1.4).
    if (document.activeElement === document.body) article.querySelector("#prompt").focus({ preventScroll: true });
    article.addEventListener("keydown", (event) => chooseByKey(form, event));
  }
  document.addEventListener("visibilitychange", look);
  addEventListener("online", look);
  addEventListener("focus", look);
  if (article.dataset.look) setInterval(look, 1000 * Number(article.dataset.look)); // more time, or the bell
}

// 1 or A marks the first option, and so on; one that was tried stays as it is. What can be typed in keeps its keys.
function chooseByKey(form, event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.key.length !== 1) return;
  if (event.target.matches("select, input[type=text]")) return;
  const place = "1234567890".indexOf(event.key);
  const box = form.querySelectorAll("input[name=option]:is([type=radio], [type=checkbox])")[
    place >= 0 ? place : "abcdefghij".indexOf(event.key.toLowerCase())];
  if (!box || box.disabled) return;
  box.focus();
  if (box.type === "radio" && box.checked) return;
  box.checked = box.type === "radio" || !box.checked;
  box.dispatchEvent(new Event("change", { bubbles: true }));
}

// One save is under way at a time, of what is marked then: an older choice can never overtake a newer one.
function keepAnswers(form) {
  const status = form.querySelector("[data-status]");
  const buttons = form.querySelectorAll("button");
  const body = (submitter) => new FormData(form, submitter);
  let marked = 0;
  let saved = 0;
  let saving = false;
  let leaving = false;

  const saveOnce = async () => {
    const mine = marked;
    for (let wait = 500; !leaving; wait = Math.min(2 * wait, 8000)) {
      try {
        await send(form.dataset.answer, body());
        status.textContent = "";
        break;
      } catch (error) {
        if (error.status < 500) {
          status.textContent = "Your choice was not saved: this page is out of date. Reload it.";
          break;
        }
        status.textContent = error.status
          ? "The server could not save your choice. It is kept here and will be sent again."
          : "No connection: your choice is kept here and will be saved when it is back.";
        await pause(wait);
      }
    }
    saved = mine;
  };
  form.addEventListener("change", async () => {
    marked += 1;
    if (saving) return;
    saving = true;
    while (saved < marked && !leaving) await saveOnce();
    saving = false;
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    leaving = true;
    const submitter = event.submitter;
    const address = submitter?.getAttribute("formaction") ?? form.getAttribute("action");
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const { location: next } = await send(address, body(submitter));
      location.replace(next);
    } catch (error) {
      // The server's page says what is wrong. The form carries its key, so no attempt is counted twice.
      if (error.status) { form.action = address; form.submit(); return; }
      leaving = false;
      buttons.forEach((button) => { button.disabled = false; });
      status.textContent = "No connection: nothing is lost. Send it again when the connection is back.";
      submitter?.focus();
    }
  });

  return {
    mark(answer) { // in another window
      if (saving || leaving || saved < marked || answer == null) return;
      const pieces = answer.split(" ");
      for (const field of form.querySelectorAll("[name=option]:enabled")) {
        if (field.type === "text") { if (field !== document.activeElement) field.value = answer; }
        else if (field.matches("select")) {
          field.value = [...field.options].map((one) => one.value).find((value) => value && pieces.includes(value)) ?? "";
        } else field.checked = pieces.includes(field.value);
      }
    },
  };
}

// Code --------------------------------------------------------------------------------------------------------

function addCopy(block) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet copy", textContent: "Copy" });
  button.addEventListener("click", async () => {
    const text = block.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block.querySelector("code"));
      button.textContent = "Selected";
    }
    await pause(2000);
    button.textContent = "Copy";
  });
  block.append(button);
}

// Experiments -------------------------------------------------------------------------------------------------

function watch(panel) {
  const source = new EventSource(panel.dataset.events);
  const text = panel.querySelector("[data-text]");
  const bar = panel.querySelector("progress");
  source.addEventListener("progress", (event) => {
    const told = JSON.parse(event.data);
    text.textContent = told.text;
    if (told.done != null) { bar.max = told.of; bar.value = told.done; }
  });
  source.addEventListener("place", (event) => { text.textContent = JSON.parse(event.data).text; });
  source.addEventListener("curve", (event) => {
    const curve = panel.querySelector("[data-curve]");
    curve.innerHTML = JSON.parse(event.data).svg; // drawn by the server from numbers
    curve.hidden = !curve.innerHTML;
  });
  source.addEventListener("running", () => { text.textContent = "Running"; });
  for (const end of ["done", "failed", "stopped"]) {
    source.addEventListener(end, () => {
      source.close();
      if (panel.closest("[data-refresh]")) refresh(); else location.reload();
    });
  }
}

// Parts of the page are taken anew from the server, and the reader stays where they are.
async function refresh() {
  try {
    const response = await fetch(location.pathname + location.search, { cache: "no-store" });
    if (!response.ok) return;
    const focused = document.activeElement?.id;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-refresh]")) {
      const fresh = page.getElementById(part.id);
      if (!fresh) continue;
      part.replaceWith(document.adoptNode(fresh));
      fresh.querySelectorAll("[data-events]").forEach(watch);
    }
    if (!document.querySelector("[data-every]")) clearInterval(looking);
    if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  } catch { /* no connection: the page keeps what it shows */ }
}

function showValues(slider) {
  const output = slider.parentElement.querySelector("output");
  slider.addEventListener("input", () => { output.value = slider.value; });
}

function foresee(note) {
  const form = note.closest("form");
  let latest = 0;
  const ask = async () => {
    const mine = ++latest;
    await pause(250); // a slider is being moved
    if (mine !== latest) return;
    const values = new URLSearchParams(new FormData(form));
    for (const name of ["csrf", "why"]) values.delete(name);
    try {
      const response = await fetch(`${note.dataset.forecast}?${values}`);
      const { text } = await response.json();
      if (mine === latest && text) note.textContent = text;
    } catch { /* the page keeps what it said */ }
  };
  form.addEventListener("input", ask);
}

// What changes by itself is asked for again while somebody looks.
const every = document.querySelector("[data-every]");
const looking = every && setInterval(() => { if (document.visibilityState === "visible") refresh(); }, 1000 * Number(every.dataset.every));

// A pack that is being written: the page follows its files.
if (document.body.dataset.live) {
  new EventSource(document.body.dataset.live).addEventListener("changed", () => location.reload());
}

document.querySelectorAll("article.problem").forEach(playProblem);
document.querySelectorAll(".code").forEach(addCopy);
document.querySelectorAll("[data-events]").forEach(watch);
document.querySelectorAll("input[type=range]").forEach(showValues);
document.querySelectorAll("[data-forecast]").forEach(foresee);
