// What pages gain from JavaScript: a running clock, choices saved as they are made, answers that survive a lost
// connection, a copy button, live progress. Every page works without it, and the server's word always counts.

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function send(address, body) {
  const response = await fetch(address, {
    method: "POST", body: new URLSearchParams(body), headers: { accept: "application/json" }, credentials: "same-origin",
  });
  if (!response.ok) throw Object.assign(new Error(`status ${response.status}`), { answered: true });
  return response.json();
}

// The clock ---------------------------------------------------------------------------------------------------

function runClock(timer) {
  const clock = timer.querySelector("[data-clock]");
  const bar = timer.parentElement.querySelector("progress");
  const announce = document.querySelector("[data-announce]");
  if (!clock) return () => {};
  // performance.now() does not jump when the learner's clock is set.
  let ends = performance.now() + 1000 * Number(timer.dataset.left);
  let last = Math.ceil(Number(timer.dataset.left));
  const warnings = [60, 30, 10];
  const tick = () => {
    const left = Math.max(0, (ends - performance.now()) / 1000);
    const whole = Math.ceil(left);
    clock.textContent = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
    bar.value = left;
    const crossed = warnings.filter((at) => whole <= at && last > at);
    if (crossed.length) announce.textContent = `${Math.min(...crossed)} seconds left`;
    last = whole;
    if (left > 0) setTimeout(tick, 250);
    else {
      timer.textContent = "Time is up. Your answer still counts, at a reduced score.";
      announce.textContent = timer.textContent;
      timer.parentElement.classList.add("over");
    }
  };
  tick();
  return (left) => { ends = performance.now() + 1000 * left; };
}

// A problem ---------------------------------------------------------------------------------------------------

function keepInStep(article) {
  const timer = article.querySelector("[role=timer]");
  const correct = timer ? runClock(timer) : () => {};
  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const response = await fetch(article.dataset.state, { cache: "no-store" });
      if (!response.ok) return;
      const state = await response.json();
      if (state.version !== article.dataset.version) location.replace(location.pathname);
      if (state.seconds_left) correct(state.seconds_left);
    } catch { /* no connection: the next look will tell */ }
  };
  document.addEventListener("visibilitychange", look);
  addEventListener("online", look);
  addEventListener("focus", look);
}

function keepAnswers(form) {
  const status = form.querySelector("[data-status]");
  const body = (submitter) => new FormData(form, submitter);
  let wanted = 0;

  const save = async () => {
    const mine = ++wanted;
    for (let wait = 500; mine === wanted; wait = Math.min(2 * wait, 8000)) {
      try {
        await send(form.dataset.answer, body());
        if (mine === wanted) status.textContent = "";
        return;
      } catch (error) {
        if (error.answered) return;
        status.textContent = "No connection: your choice is kept here and will be saved when it is back.";
        await pause(wait);
      }
    }
  };
  form.addEventListener("change", save);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    wanted += 1;
    const submitter = event.submitter;
    const address = submitter?.getAttribute("formaction") ?? form.getAttribute("action");
    form.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    try {
      const { location: next } = await send(address, body(submitter));
      location.replace(next);
    } catch (error) {
      // The form carries its key, so sending it again can never cost a second attempt.
      if (error.answered) { form.submit(); return; }
      form.querySelectorAll("button").forEach((button) => { button.disabled = false; });
      status.textContent = "No connection: nothing is lost. Send it again when the connection is back.";
      submitter?.focus();
    }
  });
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
  source.addEventListener("running", () => { text.textContent = "Running"; });
  for (const end of ["done", "failed", "stopped"]) {
    source.addEventListener(end, () => { source.close(); location.replace(location.pathname); });
  }
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

// A pack that is being written: the page follows its files.
if (document.body.dataset.live) {
  new EventSource(document.body.dataset.live).addEventListener("changed", () => location.reload());
}

document.querySelectorAll("article.problem").forEach(keepInStep);
document.querySelectorAll("form[data-answer]").forEach(keepAnswers);
document.querySelectorAll(".code").forEach(addCopy);
document.querySelectorAll("[data-events]").forEach(watch);
document.querySelectorAll("input[type=range]").forEach(showValues);
document.querySelectorAll("[data-forecast]").forEach(foresee);
