
// The plan inspector. A run's numbers are parsed, and an episode's frames decoded, when they are first looked at.
if ($("inspect")) {
  const SVG = "http://www.w3.org/2000/svg";
  const runs = JSON.parse($("runs").textContent);
  const numbers = new Map(), sheets = new Map();
  const fields = ["goals", "model", "planner", "seed"];
  const now = { run: 0, episode: 0, step: 0, timer: null, real: null, imagined: null };
  const short = (value) => (value === null || value === undefined ? "–" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));
  const run = () => runs[now.run];
  const episodes = () => {
    if (!numbers.has(now.run)) numbers.set(now.run, JSON.parse($(`run-${now.run}`).textContent));
    return numbers.get(now.run);
  };
  const episode = () => episodes()[now.episode];
  const make = (name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const setOptions = (select, values, chosen) => {
    select.replaceChildren(...values.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
  };

  // Sheets: a column of square frames.
  const sheet = async (name) => {
    if (!name) return null;
    if (!sheets.has(name)) {
      const image = new Image();
      image.src = `data:image/webp;base64,${$(`sheet-${name}`).textContent}`;
      sheets.set(name, image.decode().then(() => image, () => null));
      if (sheets.size > 24) sheets.delete(sheets.keys().next().value);
    }
    return sheets.get(name);
  };
  const paint = (id, image, index, said, instead) => {
    const canvas = $(`f-${id}`), side = image ? image.naturalWidth : 96, context = canvas.getContext("2d");
    if (canvas.width !== side) canvas.width = canvas.height = side;
    context.clearRect(0, 0, side, side);
    const has = Boolean(image) && index !== null && (index + 1) * side <= image.naturalHeight; // a model that learnt since cannot imagine again
    if (has) context.drawImage(image, 0, index * side, side, side, 0, 0, side, side);
    canvas.hidden = !has;
    canvas.setAttribute("aria-label", has ? said : instead);
    const caption = $(`c-${id}`);
    if (caption) caption.textContent = has ? said.split(": ").pop() : instead;
    canvas.parentElement.classList.toggle("without", !has);
  };

  // Where a raw step lies: the number of the iteration that carried it out, from 0.
  const iterationOf = (step) => Math.max(0, run().ends.findIndex((end, i) => i > 0 && step <= end) - 1);
  const plannedIterations = () => episode().planned.flatMap((is, i) => (is ? [i] : []));
  const lastStep = () => {
    const planned = plannedIterations();
    return planned.length ? run().ends[planned.at(-1) + 1] : 0;
  };

  const frameAt = (step) => Math.floor(step / (run().every || 1));

  // Small plots, drawn anew for every episode.
  const plot = (id, said, width, height, draw) => {
    const figure = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said, class: "figure" });
    draw((name, attributes, text) => figure.appendChild(make(name, attributes, text)));
    $(`p-${id}`).replaceChildren(figure);
  };
  const extent = (values, zero) => {
    const known = values.filter((value) => value !== null);
    let low = Math.min(...known), high = Math.max(...known);
    if (!known.length) [low, high] = [0, 1];
    if (zero && low > 0) low = 0;
    return high > low ? [low, high + 0.05 * (high - low)] : [low, low + (Math.abs(low) || 1)];
  };
  const line = (points, kind) => ["polyline", { points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), class: kind, fill: "none" }];
  const ticks = ({ low, high }) => {
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((d) => d * power).find((d) => d >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  };
  const frame = (add, x, y, names) => {
    for (const value of ticks(y)) {
      add("line", { x1: x.start, x2: x.stop, y1: y(value), y2: y(value), class: "grid" });
      add("text", { x: x.start - 6, y: y(value) + 4, "text-anchor": "end", class: "tick" }, short(value));
    }
    for (const value of ticks(x)) add("text", { x: x(value), y: y.start + 16, "text-anchor": "middle", class: "tick" }, short(value));
    add("text", { x: x.stop, y: y.start + 29, "text-anchor": "end", class: "label" }, names);
  };
  const scale = ([low, high], start, stop) => Object.assign((value) => start + ((value - low) / (high - low)) * (stop - start), { low, high, start, stop });
  const box = { width: 360, height: 216, left: 46, right: 350, top: 12, bottom: 182 };
  const wide = matchMedia("(min-width: 68rem)").matches ? { ...box, width: 740, right: 730 } : box;

  const drawDistance = () => {
    const e = episode(), last = lastStep() || e.distances.length - 1;
    const values = e.distances.slice(0, last + 1);
    const x = scale([0, Math.max(1, last)], box.left, box.right), y = scale(extent(values, true), box.bottom, box.top);
    plot("distance", `Distance to the goal by raw step, from ${short(values[0])} to ${short(values.at(-1))}`, box.width, box.height, (add) => {
      frame(add, x, y, "raw step");
      let from = null;
      e.inside.slice(0, last + 1).concat([0]).forEach((is, step) => {
        if (is && from === null) from = step;
        if (!is && from !== null) { add("rect", { x: x(from), y: box.top, width: Math.max(2, x(step - 1) - x(from)), height: box.bottom - box.top, class: "inside" }); from = null; }
      });
      if (e.inside.slice(0, last + 1).some(Boolean)) add("text", { x: box.right, y: box.top + 12, "text-anchor": "end", class: "note" }, "green: inside the goal region");
      run().ends.filter((end) => end > 0 && end <= last).forEach((end) => add("line", { x1: x(end), x2: x(end), y1: box.bottom, y2: box.bottom + 5, class: "axis" }));
      add(...line(values.map((value, step) => [x(step), y(value)]), "line c0"));
      add("line", { x1: x(now.step), x2: x(now.step), y1: box.top, y2: box.bottom, class: "now" });
      add("circle", { cx: x(now.step), cy: y(e.distances[now.step]), r: 4, class: "mark c0" });
    });
  };
  const drawTrace = (iteration) => {
    const trace = episode().trace[iteration], steps = run().traceSteps[iteration] ?? [];
    const known = (trace ?? []).map((cost, i) => [steps[i], cost]).filter(([step, cost]) => step >= 0 && cost !== null);
    if (!known.length) { $("p-trace").textContent = "No cost was recorded in this iteration."; return; }
    const x = scale(extent(known.map(([step]) => step), true), box.left, box.right), y = scale(extent(known.map(([, cost]) => cost), false), box.bottom, box.top);
    x.high = Math.max(...known.map(([step]) => step));
    plot("trace", `Cost by optimiser step in iteration ${iteration + 1}, from ${short(known[0][1])} to ${short(known.at(-1)[1])}`, box.width, box.height, (add) => {
      frame(add, x, y, "optimiser step");
      add(...line(known.map(([step, cost]) => [x(step), y(cost)]), "line c3"));
      known.forEach(([step, cost]) => add("circle", { cx: x(step), cy: y(cost), r: 2.4, class: "mark c3" }));
    });
  };
  const drawActions = (iteration) => {
    const e = episode(), last = Math.max(1, lastStep()), begin = run().ends[iteration], plan = e.plans[iteration] ?? [];
    const carried = e.actions.slice(0, last);
    const width = carried[0]?.length ?? 0;
    const x = scale([0, Math.max(last, begin + plan.filter((row) => row[0] !== null).length)], box.left, wide.right), y = scale(extent([...carried, ...plan].flat(), false), box.bottom, box.top);
    const steps = (values, from) => values.flatMap((value, i) => (value === null ? [] : [[x(from + i), y(value)], [x(from + i + 1), y(value)]]));
    plot("actions", `${width} action values by raw step; dotted is the plan of iteration ${iteration + 1}`, wide.width, box.height, (add) => {
      frame(add, x, y, "raw step");
      for (let axis = 0; axis < width; axis += 1) {
        add(...line(steps(carried.map((row) => row[axis]), 0), `line c${axis % 8}`));
        add(...line(steps(plan.map((row) => row[axis]), begin), `line planned c${axis % 8}`));
        if (width <= 4) add("text", { x: box.left + 6 + 66 * axis, y: box.top + 8, class: `name text halo c${axis % 8}` }, `action ${axis + 1}`);
      }
      add("line", { x1: x(now.step), x2: x(now.step), y1: box.top, y2: box.bottom, class: "now" });
    });
  };
  const drawPath = () => {
    const e = episode(), side = 200;
    if (!e.places || !Object.keys(e.places).some((name) => name !== "goal")) { $("p-path").textContent = "This environment does not say where things are in its images."; return; }
    const names = Object.keys(e.places).filter((name) => name !== "goal"), last = lastStep();
    const said = names.map((name) => { const [x, y] = e.places[name][now.step]; return `${name} at ${Math.round(100 * x)} % from the left and ${Math.round(100 * y)} % from above`; });
    plot("path", `Path from above: ${said.join("; ")}`, side, side, (add) => {
      if (now.real) {
        const canvas = document.createElement("canvas"), size = now.real.naturalWidth;
        canvas.width = canvas.height = size;
        canvas.getContext("2d").drawImage(now.real, 0, 0, size, size, 0, 0, size, size);
        add("image", { href: canvas.toDataURL(), width: side, height: side, opacity: 0.45, style: "image-rendering: pixelated" });
      } else add("rect", { width: side, height: side, class: "grid", fill: "none" });
      names.forEach((name, i) => {
        const at = e.places[name].slice(0, last + 1).map(([x, y]) => [x * side, y * side]);
        add(...line(at, `trail ahead c${i}`));
        add(...line(at.slice(0, now.step + 1), `trail c${i}`));
        const [goalX, goalY] = (e.places.goal?.[name] ?? [null, null]).map((v) => v && v * side);
        if (goalX !== null) {
          add("circle", { cx: goalX, cy: goalY, r: 6, class: `line c${i}` });
          add("circle", { cx: goalX, cy: goalY, r: 2, class: `mark c${i}` });
        }
        const [x, y] = at[Math.min(now.step, at.length - 1)];
        add("circle", { cx: x, cy: y, r: 4, class: `mark c${i}` });
        add("text", { x: x > side / 2 ? x - 7 : x + 7, y: y < 14 ? y + 14 : y - 6, "text-anchor": x > side / 2 ? "end" : "start", class: `name text halo c${i}`, style: "font-size: 9px" }, name);
      });
    });
  };

  const showStep = () => {
    const e = episode(), r = run(), iteration = iterationOf(now.step), planned = plannedIterations(), at = planned.indexOf(iteration);
    const within = now.step - r.ends[iteration], block = Math.min(r.taken[iteration] ?? 0, Math.floor(within / r.frameskip));
    const start = planned.slice(0, Math.max(0, at)).reduce((sum, i) => sum + (r.taken[i] ?? 0) + 1, 0);
    const noFrames = !r.drawn ? "no frames were drawn for this run" : "left out to keep the page small";
    const noImage = !r.drawn || r.decoder ? noFrames : "this model has no decoder: it imagines, but cannot show it";
    paint("real", now.real, frameAt(now.step), `Simulator: raw step ${now.step}`, noFrames);
    const first = block === 0 ? (at > 0 ? "what was seen, where this plan begins" : "the start") : `block ${block} of this plan`;
    if (block > 0 && at >= 0) paint("imagined", now.imagined, start + block - 1, `Imagined: ${first}`, noImage);
    else paint("imagined", now.imagined && now.real, frameAt(r.ends[iteration]), `Imagined: ${first}`, noImage);
    paint("end", now.imagined, at >= 0 ? start + (r.taken[iteration] ?? 0) : null, `Imagined: end of plan ${iteration + 1}`, noImage);
    paint("goal", now.real, now.real ? now.real.naturalHeight / now.real.naturalWidth - 1 : null, "Goal: what the plan should show", noFrames);
    $("i-step").value = now.step;
    $("i-iteration").value = iteration + 1;
    $("o-step").textContent = `${now.step} of ${$("i-step").max}`;
    $("o-iteration").textContent = `${iteration + 1} of ${$("i-iteration").max}`;
    $("i-step").setAttribute("aria-valuetext", `raw step ${now.step}, distance ${short(e.distances[now.step])}`);
    drawDistance(); drawPath(); drawActions(iteration);
    if (now.traced !== iteration) { drawTrace(iteration); now.traced = iteration; }
    const facts = [["Distance now", e.distances[now.step]], ["Cost before, after planning", `${short(e.before[iteration])} → ${short(e.after[iteration])}`], ["Latent distance, imagined", e.imaginedDistance[iteration]], ["Latent distance, came true", e.trueDistance[iteration]], ["Rollouts (differentiated)", `${short(e.evaluations[iteration])} (${short(e.gradients[iteration])})`], ["Planning, s", e.seconds[iteration]]];
    $("i-numbers").replaceChildren(...facts.map(([name, value]) => {
      const div = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name; dd.textContent = typeof value === "string" ? value : short(value);
      div.append(dt, dd);
      return div;
    }));
  };
  const pause = () => {
    clearInterval(now.timer); now.timer = null;
    $("i-play").textContent = "Play"; $("i-play").setAttribute("aria-pressed", "false");
  };
  const goTo = (step) => { now.step = Math.max(0, Math.min(Number($("i-step").max), step)); showStep(); };
  const play = () => {
    if (now.timer) return pause();
    if (now.step >= Number($("i-step").max)) goTo(0);
    $("i-play").textContent = "Pause"; $("i-play").setAttribute("aria-pressed", "true");
    now.timer = setInterval(() => { if (now.step >= Number($("i-step").max)) pause(); else goTo(now.step + 1); }, 80);
  };

  const showEpisode = async (place) => {
    pause();
    now.episode = place;
    const e = episode(), r = run(), others = solvers(e.n).map((other) => `${other.model} with ${other.planner}`);
    const outcome = e.solved ? `Solved at raw step ${e.solvedAt}${e.final ? "" : ", yet outside the goal region at the end"}.` : `Not solved in ${r.ends.at(-1)} raw steps.`;
    const cause = !e.solved && e.why ? ` Why: ${e.why}${e.evidence ? ` (${e.evidence})` : ""}.` : "";
    $("i-summary").textContent = `Episode ${e.n}. ${outcome}${cause}`;
    const also = document.createElement("small");
    also.textContent = others.length ? `Also solved by ${others.slice(0, 4).join("; ")}${others.length > 4 ? ` and ${others.length - 4} more` : ""}.` : "Solved by no other run shown here.";
    $("i-summary").append(also);
    $("i-note").hidden = !r.older;
    $("i-note").textContent = "The frames were drawn before the numbers of this run changed: draw them again.";
    $("i-step").max = lastStep();
    $("i-iteration").max = Math.max(1, plannedIterations().length ? plannedIterations().at(-1) + 1 : 1);
    const mine = (now.token = {});
    const [real, imagined] = await Promise.all([sheet(e.real), sheet(e.imagined)]);
    if (mine !== now.token) return;
    Object.assign(now, { real, imagined, traced: null });
    goTo(0);
  };
  const solvers = (n) => runs.filter((other, i) => i !== now.run && other.goals === run().goals && other.episodes.some((e) => e.n === n && e.solved));
  const listEpisodes = () => {
    const kind = $("i-filter").value;
    const found = run().episodes.flatMap((e, i) => {
      const fits = { all: true, failed: !e.solved, solved: e.solved, others: !e.solved && solvers(e.n).length > 0 }[kind];
      return fits ? [[i, `${e.n}: ${e.solved ? `solved at ${e.solvedAt}` : `failed${e.why ? `, ${e.why}` : ""}`}`]] : [];
    });
    setOptions($("i-episode"), found, now.episode);
    for (const id of ["i-episode", "i-before", "i-next"]) $(id).disabled = found.length === 0;
    if (!found.length) { setOptions($("i-episode"), [["", "none"]], ""); $("i-summary").textContent = "No episode of this run is like that."; return; }
    showEpisode(found.some(([i]) => i === now.episode) ? now.episode : found[0][0]);
  };
  // Choosing goals, model, planner and seed: what does not exist together is not offered.
  const choose = (changed) => {
    const wanted = Object.fromEntries(fields.map((field) => [field, $(`i-${field}`).value]));
    let left = runs;
    const n = run().episodes[now.episode]?.n;
    for (const field of fields) {
      const values = [...new Set(left.map((r) => String(r[field])))];
      const value = changed !== null && values.includes(wanted[field]) ? wanted[field] : values[0];
      setOptions($(`i-${field}`), values.map((v) => [v, v]), value);
      left = left.filter((r) => String(r[field]) === value);
    }
    $("i-seed-box").hidden = $("i-seed").options.length < 2;
    now.run = runs.indexOf(left[0]);
    now.episode = Math.max(0, run().episodes.findIndex((e) => e.n === n)); // the same episode with another planner
    listEpisodes();
  };
  for (const field of fields) $(`i-${field}`).addEventListener("change", () => choose(field));
  $("i-filter").addEventListener("change", listEpisodes);
  $("i-episode").addEventListener("change", (event) => showEpisode(Number(event.target.value)));
  const move = (by) => {
    const select = $("i-episode"), next = (select.selectedIndex + by + select.options.length) % select.options.length;
    select.selectedIndex = next;
    showEpisode(Number(select.value));
  };
  $("i-before").addEventListener("click", () => move(-1));
  $("i-next").addEventListener("click", () => move(1));
  $("i-play").addEventListener("click", play);
  $("i-step").addEventListener("input", (event) => { pause(); goTo(Number(event.target.value)); });
  $("i-iteration").addEventListener("input", (event) => { pause(); goTo(run().ends[Number(event.target.value)]); });
  $("inspect").addEventListener("keydown", (event) => {
    if (["SELECT", "BUTTON"].includes(event.target.tagName) && event.key === " ") return;
    const does = { ",": () => { pause(); goTo(now.step - 1); }, ".": () => { pause(); goTo(now.step + 1); }, " ": play }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  $("inspect").hidden = false;
  choose(null);
}
