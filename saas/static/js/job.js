// Live job page: reads /ws/jobs/{id}?after=N, applies each numbered event once, asks again from the last number after a break.
(function () {
  "use strict";

  var root = document.querySelector("[data-job]");
  if (!root) return;
  var last = Number(root.dataset.lastSeq);
  var wait = 500;
  var socket = null;
  var timer = null;
  var ended = root.dataset.ended === "1";
  var end = null; // the number of the last event, once the job has ended
  var fill = window.cloister.charts.fill;
  var connection = document.querySelector("[data-connection]");

  function say(word) { if (connection) connection.textContent = root.dataset[word] || ""; }

  // The progress bar is gone once the summary shows the end, while the last events may still be coming.
  function tell(name, words) {
    var element = document.querySelector("[data-live-" + name + "]");
    if (element) element.textContent = words;
  }

  function duration(seconds) {
    var whole = Math.max(0, Math.round(seconds));
    if (whole < 60) return whole + " s";
    if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
    return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
  }

  function progress(value, total, words) {
    var bar = document.querySelector("[data-live-progress] progress");
    if (!bar) return;
    bar.max = total || 1;
    bar.value = value;
    tell("phase", words);
  }

  function metrics(data) {
    progress(data.step, data.steps, fill(root.dataset.stepWords, { step: data.step, steps: data.steps }));
    tell("rate", data.examples_per_second ? fill(root.dataset.rateWords, { rate: Math.round(data.examples_per_second).toLocaleString() }) : "");
    tell("left", fill(root.dataset.leftWords, { time: duration(data.seconds_left || 0) }));
    document.querySelectorAll("[data-live-epsilon]").forEach(function (element) {
      if (typeof data.epsilon === "number") element.textContent = (Math.ceil(Math.round(data.epsilon * 1e8) / 1e6) / 100).toFixed(2);
    });
    window.cloister.charts.add("chart-epsilon", [data.step, data.epsilon]);
    window.cloister.charts.add("chart-rate", [data.step, data.examples_per_second]);
  }

  function phase(data) {
    progress(data.done, data.total, fill(root.dataset.phaseWords, { name: data.name.charAt(0).toUpperCase() + data.name.slice(1), done: (data.done || 0).toLocaleString(), total: (data.total || 0).toLocaleString() }));
    tell("rate", "");
    tell("left", "");
  }

  function line(event) {
    if (!event.data.message) return;
    var list = document.querySelector("[data-events]");
    var item = document.createElement("li");
    item.className = event.data.level === "error" ? "is-error" : event.data.level === "warn" ? "is-warn" : "";
    var time = document.createElement("time");
    time.dateTime = event.at;
    time.dataset.when = "clock";
    var words = document.createElement("span");
    words.textContent = event.data.message;
    item.append(time, words);
    list.prepend(item);
    window.cloister.localise(item);
  }

  // State, error, figures and actions come from the server as the same partial as at first paint.
  function summary() {
    fetch(root.dataset.summary, { credentials: "same-origin", headers: { "X-Part": "summary" } }).then(function (answer) {
      return answer.ok ? answer.text() : null;
    }).then(function (text) {
      if (text === null) return;
      var fresh = new DOMParser().parseFromString(text, "text/html");
      var over = fresh.querySelector("[data-job-ended]");
      if (over) end = Number(over.dataset.jobEnded);
      ["job-head", "job-summary", "job-actions"].forEach(function (id) {
        var old = document.getElementById(id);
        var now = fresh.getElementById(id);
        if (old && now && !document.querySelector("dialog[open]")) old.replaceWith(document.adoptNode(now));
      });
      window.cloister.localise(document);
      finish();
    }).catch(function () { setTimeout(summary, 2000); });
  }

  // The place in the line moves with other jobs, which send no event here: it is asked for while the run waits.
  function place() {
    if (document.hidden || !document.querySelector("[data-job-waiting]")) return;
    fetch(root.dataset.summary, { credentials: "same-origin", headers: { "X-Part": "summary" } }).then(function (answer) {
      return answer.ok ? answer.text() : null;
    }).then(function (text) {
      var now = text === null ? null : new DOMParser().parseFromString(text, "text/html").getElementById("job-place");
      var old = document.getElementById("job-place");
      if (!old || !now) return;
      old.replaceWith(document.adoptNode(now));
      window.cloister.localise(document);
    }).catch(function () {});
  }

  // The end may be known before the last events have come: go on until all of them are drawn.
  function finish() {
    if (end === null || last < end) return;
    ended = true;
    socket.close();
    say("closedWords");
  }

  function apply(event) {
    if (event.type === "metrics") metrics(event.data);
    else if (event.type === "phase") phase(event.data);
    else if (event.type === "held_out") window.cloister.charts.add("chart-accuracy", [event.data.step, event.data.accuracy, event.data.noise_error]);
    if (event.type !== "metrics" && event.type !== "phase") line(event);
    if (event.type === "state") summary();
    root.dispatchEvent(new CustomEvent("cloister:event", { detail: event }));
  }

  function receive(message) {
    var event = JSON.parse(message.data);
    if (typeof event.seq !== "number" || event.seq <= last) return;
    if (event.seq !== last + 1) return socket.close();
    last = event.seq;
    root.dataset.lastSeq = String(last);
    apply(event);
    finish();
  }

  function again() {
    if (ended) return;
    say("brokenWords");
    clearTimeout(timer);
    timer = setTimeout(open, wait * (0.75 + Math.random() / 2));
    wait = Math.min(10000, wait * 2);
  }

  // A one-use ticket opens the socket; it is asked for anew at each connection.
  function open() {
    var token = document.querySelector("[name=csrfmiddlewaretoken]");
    fetch(root.dataset.tickets, { method: "POST", credentials: "same-origin", headers: { "X-CSRFToken": token ? token.value : "" } })
      .then(function (answer) { return answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status))); })
      .then(function (body) { connect(body.ticket); })
      .catch(again);
  }

  function connect(ticket) {
    var scheme = location.protocol === "https:" ? "wss://" : "ws://";
    socket = new WebSocket(scheme + location.host + root.dataset.socket + "?after=" + last + "&ticket=" + encodeURIComponent(ticket));
    socket.onopen = function () { wait = 500; say("openWords"); };
    socket.onmessage = receive;
    socket.onclose = again;
  }

  window.addEventListener("online", function () { if (!ended && socket && socket.readyState > 1) { clearTimeout(timer); open(); } });
  if (!ended) open();
  if (!ended) setInterval(place, 10000);
})();
