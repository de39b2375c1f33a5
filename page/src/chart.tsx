// A chart over time, drawn by uPlot.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Series } from "./api";
import { number } from "./format";

export interface Line {
  field: string;
  label: string;
  /** A custom property of the style sheet. */
  color: string;
}

const HEIGHT = 220;

function colorOf(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const withSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const withoutSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** `step`: seconds between two marks. */
function timeOf(unix: number, step: number): string {
  return (step < 60 ? withSeconds : withoutSeconds).format(unix * 1000);
}

function data(series: Series | undefined, lines: Line[]): uPlot.AlignedData {
  if (series === undefined) return [[], ...lines.map(() => [])];
  const columns = lines.map((line) => series.columns[line.field] ?? []);
  const points = columns[0]?.length ?? 0;
  const times = Array.from({ length: points }, (_, at) => series.from + at * series.stepSeconds);
  return [times, ...columns];
}

function options(lines: Line[], width: number): uPlot.Options {
  const axis = { stroke: colorOf("--quiet"), grid: { stroke: colorOf("--line") }, ticks: { stroke: colorOf("--line") } };
  return {
    width,
    height: HEIGHT,
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [{ ...axis, values: (_, times, __, ___, step) => times.map((time) => timeOf(time, step)) }, { ...axis, size: 64, values: (_, values) => values.map((value) => number(value)) }],
    series: [
      { value: (_: uPlot, time: number | null) => (time === null ? "–" : withSeconds.format(time * 1000)) },
      ...lines.map((line) => ({
        label: line.label,
        stroke: colorOf(line.color),
        width: 2,
        points: { show: false },
        value: (_: uPlot, value: number | null) => number(value),
      })),
    ],
    legend: { live: true },
  };
}

export function Chart(props: { title: string; series: Series | undefined; lines: Line[] }) {
  const { title, series, lines } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  useEffect(() => {
    const box = place.current;
    if (box === null) return undefined;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      const shown = plot.current?.data;
      plot.current?.destroy();
      plot.current = new uPlot(options(lines, box.clientWidth), shown ?? data(series, lines), box);
    };
    const sized = new ResizeObserver(() => plot.current?.setSize({ width: box.clientWidth, height: HEIGHT }));
    draw();
    sized.observe(box);
    dark.addEventListener("change", draw);
    return () => {
      dark.removeEventListener("change", draw);
      sized.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
    // Lines of a chart never change.
  }, []);
  useEffect(() => plot.current?.setData(data(series, lines)), [series]);
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={place} role="img" aria-label={`${title}: ${lines.map((line) => line.label).join(", ")} over time`} />
    </figure>
  );
}
