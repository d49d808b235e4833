// Draws every <figure data-chart> with uPlot from the table behind its toggle; rows appended later are drawn too.
(function () {
  "use strict";

  var charts = {};

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function fill(words, values) {
    return (words || "").replace(/\{(\w+)\}/g, function (all, key) { return key in values ? values[key] : all; });
  }

  function number(value, kind) {
    if (value === null || value === undefined || isNaN(value)) return "–";
    if (kind === "accuracy") return (100 * value).toFixed(1);
    if (kind === "epsilon") return (Math.ceil(Math.round(value * 1e8) / 1e6) / 100).toFixed(2);
    return value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 2 : 0 });
  }

  function rows(figure) {
    return Array.from(figure.querySelectorAll("tbody tr")).map(function (row) {
      return Array.from(row.cells).map(function (cell) { return cell.dataset.value === "" ? null : Number(cell.dataset.value); });
    });
  }

  function columns(chart) {
    var data = rows(chart.figure);
    var x = data.map(function (row) { return row[0]; });
    var y = data.map(function (row) { return row[1]; });
    return [x, y];
  }

  // Error bars of the held-out accuracy: column 3 of the table is the standard error of the noise.
  function drawErrors(chart) {
    return function (plot) {
      var context = plot.ctx;
      var data = rows(chart.figure);
      context.save();
      context.strokeStyle = colour("--privacy");
      context.lineWidth = 1.5 * devicePixelRatio;
      data.forEach(function (row) {
        if (row[1] === null || !row[2]) return;
        var x = plot.valToPos(row[0], "x", true);
        var low = plot.valToPos(row[1] - row[2], "y", true);
        var high = plot.valToPos(row[1] + row[2], "y", true);
        var cap = 4 * devicePixelRatio;
        context.beginPath();
        context.moveTo(x, low); context.lineTo(x, high);
        context.moveTo(x - cap, low); context.lineTo(x + cap, low);
        context.moveTo(x - cap, high); context.lineTo(x + cap, high);
        context.stroke();
      });
      context.restore();
    };
  }

  function drawTarget(chart) {
    return function (plot) {
      if (chart.target === null) return;
      var context = plot.ctx;
      var y = plot.valToPos(chart.target, "y", true);
      context.save();
      context.strokeStyle = colour("--muted");
      context.lineWidth = devicePixelRatio;
      context.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      context.beginPath();
      context.moveTo(plot.bbox.left, y);
      context.lineTo(plot.bbox.left + plot.bbox.width, y);
      context.stroke();
      context.restore();
    };
  }

  function range(chart) {
    return function (plot, low, high) {
      if (chart.kind === "epsilon") return [0, Math.max(chart.target || 0, high || 0) * 1.08 || 1];
      if (chart.kind === "accuracy") {
        var reach = rows(chart.figure).reduce(function (most, row) { return Math.max(most, row[2] || 0); }, 0.01);
        return [Math.max(0, (low === null ? 0 : low) - 2 * reach), Math.min(1, (high === null ? 1 : high) + 2 * reach)];
      }
      return [0, (high || 1) * 1.15];
    };
  }

  function axis(extra) {
    return Object.assign({
      stroke: function () { return colour("--muted"); },
      font: "12px " + getComputedStyle(document.body).fontFamily,
      grid: { stroke: function () { return colour("--hairline"); }, width: 1 },
      ticks: { show: false },
    }, extra);
  }

  function options(chart, width) {
    var privacy = chart.kind === "epsilon" || chart.kind === "accuracy";
    var ink = function () { return colour(privacy ? "--privacy" : "--accent"); };
    var few = chart.kind === "accuracy";
    var series = [{}, {
      stroke: ink, width: 2, paths: few ? function () { return null; } : undefined,
      points: { show: function (plot) { return few || chart.kind === "time" || plot.data[0].length < 20; }, size: few ? 8 : 5, fill: ink, stroke: ink },
    }];
    return {
      width: width, height: 208, series: series, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
      padding: [8, 8, 0, 0],
      scales: { x: { time: chart.kind === "time", range: chart.kind === "time" ? undefined : function (plot, low, high) { return low === high ? [0, (high || 1) * 1.1] : [few ? Math.min(0, low) : low, few ? high * 1.05 : high]; } }, y: { range: range(chart) } },
      axes: [axis(chart.kind === "time" ? { size: 32, values: clock } : { size: 32, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }), axis({ size: 52, values: function (plot, ticks) { return ticks.map(function (tick) { return tickWords(chart, tick); }); } })],
      hooks: { draw: few ? [drawErrors(chart)] : [drawTarget(chart)], setCursor: [function (plot) { hover(chart, plot); }] },
    };
  }

  // Hours where the picture covers two days or less, else days.
  function clock(plot, ticks) {
    var short = plot.scales.x.max - plot.scales.x.min <= 172800 ? { hour: "2-digit", minute: "2-digit", hour12: false } : { day: "numeric", month: "short" };
    return ticks.map(function (tick) { return new Date(1000 * tick).toLocaleString(undefined, short); });
  }

  function tickWords(chart, tick) {
    if (chart.kind === "accuracy") return Math.round(100 * tick) + " %";
    return tick.toLocaleString(undefined, { notation: tick >= 10000 ? "compact" : "standard", maximumFractionDigits: 2 });
  }

  function moment(seconds) { return new Date(1000 * seconds).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }); }

  function values(chart, row) {
    return { x: chart.kind === "time" ? moment(row[0]) : number(row[0], "plain"), y: number(row[1], chart.kind), error: number(row[2], chart.kind), target: chart.target === null ? "" : number(chart.target, chart.kind) };
  }

  function isMeasured(row) { return row[1] !== null && !isNaN(row[1]); }

  // Reads the row under the cursor, else the last one with a value; a step without a value keeps what was read.
  function hover(chart, plot) {
    var data = rows(chart.figure);
    var at = plot.cursor.idx;
    var row = at === null || at === undefined ? data.filter(isMeasured).pop() : data[at];
    if (row && isMeasured(row) && chart.words) chart.reading.textContent = fill(chart.words, values(chart, row));
  }

  function draw(chart) {
    var data = columns(chart);
    if (!data[0].length) return;
    if (chart.plot) return chart.plot.setData(data);
    chart.box.classList.remove("chart__plot--empty");
    chart.box.textContent = "";
    chart.plot = new uPlot(options(chart, chart.box.clientWidth || 400), data, chart.box);
  }

  function make(figure) {
    var chart = {
      figure: figure, kind: figure.dataset.chart, box: figure.querySelector(".chart__plot"), plot: null,
      reading: figure.querySelector("[data-reading]"), words: figure.dataset.words || "",
      target: figure.dataset.target ? Number(figure.dataset.target) : null,
    };
    charts[figure.id] = chart;
    draw(chart);
    new ResizeObserver(function () { if (chart.plot && chart.box.clientWidth) chart.plot.setSize({ width: chart.box.clientWidth, height: 208 }); }).observe(chart.box);
  }

  // Append one row of numbers to a chart's table and redraw; a row whose x is not larger than the last is left out.
  function add(id, row) {
    var chart = charts[id];
    if (!chart || row[1] === null || row[1] === undefined) return;
    var body = chart.figure.querySelector("tbody");
    var last = body.lastElementChild;
    if (last && Number(last.cells[0].dataset.value) >= row[0]) return;
    var line = body.insertRow();
    row.forEach(function (value) {
      var cell = line.insertCell();
      cell.className = "num";
      cell.dataset.value = value === null ? "" : String(value);
      cell.textContent = value === null ? "–" : value.toLocaleString(undefined, { maximumFractionDigits: 4 });
    });
    chart.reading.textContent = fill(chart.words, values(chart, row));
    draw(chart);
  }

  document.querySelectorAll("figure[data-chart]").forEach(make);
  document.addEventListener("cloister:theme", function () { Object.values(charts).forEach(function (chart) { if (chart.plot) chart.plot.redraw(); }); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { document.dispatchEvent(new CustomEvent("cloister:theme")); });
  window.cloister.charts = { add: add, fill: fill };
})();
