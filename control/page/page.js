// The status page: one document after another from /live, drawn anew where it
// changed. Text only ever becomes text: what a peer or an action says is never
// taken for HTML.
"use strict";

const maxTakeovers = 12, maxEvents = 40, staleAfter = 3500; // ms: three messages missed
const byId = (id) => document.getElementById(id);

// el makes an element; children are elements or strings, null ones are left out.
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "at") for (const [k, v] of Object.entries(value)) node.style[k] = v;
    else if (name === "data") Object.assign(node.dataset, value);
    else node[name] = value;
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

// draw fills a place, but only if what it is made from has changed: a selection
// in what did not change stays.
const drawn = new Map();
function draw(id, from, make) {
  const key = JSON.stringify(from);
  if (drawn.get(id) === key) return;
  drawn.set(id, key);
  byId(id).replaceChildren(...[make(from)].flat());
}

const tones = {
  held: "good", up: "good", ok: "good", proven: "good",
  moving: "odd", survivor: "odd", suspect: "odd", rising: "odd", warn: "odd", paused: "odd", unknown: "faint",
  vacant: "bad", silent: "bad", refused: "bad", down: "bad", unhealthy: "bad", unfit: "bad", unready: "bad", unproven: "bad",
};
const word = (w) => el("span", { className: tones[w] ?? "" }, w);

function ms(x) {
  const a = Math.abs(x);
  if (a >= 10000) return (x / 1000).toFixed(1) + " s";
  return (a >= 100 ? x.toFixed(0) : x.toFixed(1)) + " ms";
}

function clock(time) {
  const t = new Date(time);
  const day = t.toDateString() === new Date().toDateString() ? "" : t.toLocaleDateString() + " ";
  return day + t.toLocaleTimeString();
}

function age(time) {
  const s = Math.max(0, Math.round((Date.now() - new Date(time)) / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + (Math.floor(s / 60) % 60) + " min";
  return Math.floor(s / 86400) + " days";
}

const since = (time) => time ? el("p", { className: "faint" }, "for ", el("time", { dateTime: time, title: clock(time), className: "age" }, age(time))) : null;

function lease(v) {
  const vip = "address" in v;
  const checked = vip && v.holder && !v.unchecked;
  const trouble = v.state === "vacant" || (checked && !v.verified) || v.router === "unproven";
  return el("article", { className: trouble ? "card trouble" : "card", data: { vip: v.name } },
    el("h3", {}, v.name, " ", el("span", { className: "faint" }, vip ? v.address : "role")),
    el("p", { className: "holder" }, v.holder || "nobody"),
    el("p", {}, word(v.state), " ", el("span", { className: "faint" }, "epoch " + v.epoch)),
    since(v.since),
    v.reason ? el("p", {}, v.reason) : null,
    v.away_from ? el("p", { className: "odd" }, "away from " + v.away_from) : null,
    checked ? el("p", { className: v.verified ? "good" : "bad" }, v.verified ? "answers SIP" : "does not answer SIP") : null,
    vip && v.router !== "unknown" ? el("p", {}, "router: ", word(v.router)) : null);
}

function node(n) {
  const odd = [];
  if (n.drained) odd.push("drained");
  if (n.held_down) odd.push("came back lately, ranks last");
  if (n.config_differs) odd.push("runs another configuration");
  if (n.frozen_for_ms) odd.push("frozen for " + ms(n.frozen_for_ms));
  const state = !n.alive ? ["bad", "silent"] : n.witness ? ["good", "witness"] : n.fit ? ["good", "fit"] : ["bad", "not fit"];
  return el("article", { className: state[0] === "bad" ? "card trouble" : "card", data: { node: n.name } },
    el("h3", {}, n.name, " ", el("span", { className: "faint" }, n.address)),
    el("p", {}, el("span", { className: state[0] }, state[1]), n.why ? ": " + n.why : ""),
    n.witness || !n.alive ? null : el("p", {}, "SIP ", word(n.sip)),
    el("p", {}, n.holds.length ? "holds " + n.holds.join(", ") : el("span", { className: "faint" }, "holds nothing")),
    ...odd.map((o) => el("p", { className: "odd" }, o)),
    ...(n.checks ?? []).map((c) => el("p", {}, "check " + c.name + ": ", word(c.state), c.text ? " " + c.text : "")));
}

const numbers = ["median", "p90", "p99", "max", "silent after"];

function table(heads, rows, what) {
  if (!rows.length) return el("p", { className: "faint" }, "none");
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col", className: numbers.includes(h) ? "number" : "" }, h)))),
    el("tbody", { ariaLabel: what }, ...rows));
}

function views(nodes) {
  const observers = nodes.map((n) => n.name);
  const rows = nodes.filter((n) => n.views).map((n) => el("tr", { data: { pbx: n.name } }, el("th", { scope: "row" }, "PBX of " + n.name),
    ...observers.map((o) => el("td", {}, word(n.views.find((v) => v.from === o)?.sip ?? "–")))));
  return table(["", ...observers.map((o) => "from " + o)], rows, "views");
}

function targets(all) {
  const number = (x) => el("td", { className: "number" }, x);
  const rows = all.map(({ on, t }) => el("tr", {}, el("th", { scope: "row" }, on + " " + t.name), el("td", {}, t.uri), el("td", {}, word(t.state)),
    el("td", {}, t.code ? t.code + " " + t.phrase : t.error ?? ""),
    ...(t.answers ? [t.rtt_median_ms, t.rtt_p90_ms, t.rtt_p99_ms, t.rtt_max_ms].map((x) => number(ms(x))) : ["", "", "", ""].map(number)),
    number(ms(t.timeout_ms))));
  return table(["listener", "", "", "last answer", "median", "p90", "p99", "max", "silent after"], rows, "targets");
}

// Scale places moments between two ends on a track.
class Scale {
  constructor(from, to) { this.from = from; this.span = Math.max(to - from, 0.001); }
  left(x) { return ((x - this.from) / this.span * 100).toFixed(3) + "%"; }
  width(d) { return (d / this.span * 100).toFixed(3) + "%"; }
  row(name, value, mark, kind) {
    return [el("span", { className: "name", title: name }, name),
      el("div", { className: "track", data: { row: kind ?? name } }, el("i", { className: "zero", at: { left: this.left(0) } }), mark),
      el("span", { className: "ms" }, value)];
  }
  dot(x) { return el("i", { className: "dot", at: { left: this.left(x) } }); }
  bar(from, to, kind) { return el("i", { className: "bar " + kind, at: { left: this.left(from), width: this.width(to - from) } }); }
}

// feltBy is what a phone noticed, in words.
function feltBy(e) {
  if (!e.felt) return null;
  if (e.felt.to_ms === undefined) return el("p", { className: "felt bad" }, e.outcome ? "Nobody answered phones when this ended." : "Nobody answers phones yet.");
  const took = ms(e.felt.to_ms - e.felt.from_ms);
  return el("p", { className: "felt" }, "A phone had nobody to talk to for " + {
    "last heard": "at most " + took + ".",
    "lease": "at most about " + took + ".",
  }[e.felt.since] ?? took + " from when that was noticed; before, too, where a PBX hung (up to fall intervals and a timeout).");
}

function takeover(e) {
  const marks = e.timeline ?? [];
  const ends = marks.map((m) => m.at_ms + (m.took_ms ?? 0));
  const first = Math.min(0, ...marks.map((m) => m.at_ms)), last = Math.max(0, ...ends);
  const trouble = e.outcome && e.outcome !== "done", failed = marks.filter((m) => m.ok === false).length;

  // What it cost, beside the lease it happened under: today's may be another one. Where
  // that is not known none is drawn.
  const leaseTime = e.lease_ms ?? 0;
  const heard = e.felt ? Math.min(0, e.felt.from_ms) : first;
  const felt = e.felt ? { from: e.felt.from_ms, to: e.felt.to_ms ?? last } : null;
  const wide = new Scale(heard, Math.max(heard + leaseTime, last));
  const beside = [
    el("div", { className: "head" }, leaseTime ? "beside the lease" : "as a whole"),
    ...(leaseTime ? wide.row("lease", ms(leaseTime), wide.bar(heard, heard + leaseTime, "lease"), "whole lease") : []),
    ...wide.row("takeover", ms(last), wide.bar(0, last, trouble ? "failed" : ""), "whole takeover"),
    ...(felt ? wide.row("phone: silence", ms(felt.to - felt.from), wide.bar(felt.from, felt.to, e.felt.to_ms === undefined ? "phone open" : "phone"), "whole silence") : []),
  ];

  // By itself: every mark, from the first to the last. The lease that a crash had
  // to wait out stands above; here it would push all else into one point.
  const steps = marks.filter((m) => m.mark !== "last heard");
  const own = new Scale(Math.min(0, ...steps.map((m) => m.at_ms)), last);
  const rows = steps.flatMap((m) => {
    if (m.ok === undefined) return own.row(m.mark, ms(m.at_ms), own.dot(m.at_ms));
    const row = own.row(m.mark, "+ " + ms(m.took_ms ?? 0), own.bar(m.at_ms, m.at_ms + (m.took_ms ?? 0), m.ok ? "" : "failed"), "action");
    return m.ok ? row : [...row, el("pre", { className: "output bad" }, (m.err ?? "failed") + (m.output ? "\n" + m.output : ""))];
  });
  return el("article", { className: trouble ? "takeover trouble" : "takeover", data: { takeover: String(e.id), vip: e.vip } },
    el("h3", {}, e.vip + ": " + (e.from || "nobody") + " → " + e.to, " ",
      el("span", { className: "faint" }, [clock(e.time), e.reason, e.text, "epoch " + e.epoch, e.told ? "told by " + e.node : ""].filter(Boolean).join(", "))),
    el("p", { className: trouble ? "bad" : e.outcome && !failed ? "good" : "odd" }, (e.outcome || "still going on") + (failed ? ", " + failed + (failed > 1 ? " actions" : " action") + " failed" : "")),
    feltBy(e),
    el("div", { className: "scale" }, ...beside, el("div", { className: "head" }, "since it was noticed"), ...rows));
}

function event(e) {
  return el("li", {}, el("span", { className: "faint" }, clock(e.time) + " " + e.node + " "),
    e.kind + ": " + (e.text || e.vip || ""));
}

const events = new Map();
let heardAt = 0, lostSince = null;

function show(doc) {
  const st = doc.status;
  for (const e of doc.events ?? []) events.set(e.id, e);
  byId("version").textContent = doc.version ? "sipalive " + doc.version : "";
  if (!st) return lost(doc.error);
  heardAt = Date.now();
  lostSince = null;
  document.body.classList.remove("stale");
  byId("link").className = "live";
  byId("link").textContent = "live";
  document.title = (doc.unusual.length ? "(" + doc.unusual.length + ") " : "") + "sipalive " + st.cluster;
  byId("cluster").textContent = st.cluster;
  draw("facts", ["seen from " + st.node, st.quorum ? "quorum" : "no quorum", "fence " + st.fence].join(", "), (text) => text);
  draw("unusual", doc.unusual, (lines) => lines.length ? lines.map((l) => el("li", {}, l)) : [el("li", { className: "none" }, "nothing")]);
  draw("vips", [...st.vips, ...(st.roles ?? [])].map(({ targets, ...v }) => v), (all) => all.map(lease));
  draw("nodes", st.nodes.map(({ views, targets, ...n }) => n), (all) => all.map(node));
  draw("views", st.nodes.map(({ name, views }) => ({ name, views })), views);
  draw("targets", [...st.nodes, ...st.vips].flatMap((n) => (n.targets ?? []).map((t) => ({ on: n.name, t: { ...t, answers: t.answers > 0 } }))), targets);
  const newest = [...events.values()].sort((a, b) => b.id - a.id);
  const takeovers = newest.filter((e) => e.kind === "takeover").slice(0, maxTakeovers);
  const others = newest.filter((e) => e.kind !== "takeover").slice(0, maxEvents);
  if (newest.length > 500) { // of a page that is open for days
    events.clear();
    for (const e of [...takeovers, ...others]) events.set(e.id, e);
  }
  draw("takeovers", takeovers, (list) => list.length ? list.map(takeover) : [el("p", { className: "faint" }, "none since its agent started")]);
  draw("events", others, (list) => list.map(event));
}

function lost(why) {
  lostSince ??= new Date();
  document.body.classList.add("stale");
  byId("link").className = "lost";
  byId("link").textContent = (why || "no word from the agent") + ", since " + clock(lostSince);
}

function watch() {
  const source = new EventSource("live");
  source.onopen = () => events.clear(); // an agent that starts numbers its events anew
  source.onmessage = (m) => show(JSON.parse(m.data));
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, 1000); // a refusal: the browser gives up, we do not
  };
}

setInterval(() => {
  if (heardAt && Date.now() - heardAt > staleAfter) lost();
  for (const t of document.querySelectorAll("time.age")) t.textContent = age(t.dateTime);
}, 1000);

watch();
