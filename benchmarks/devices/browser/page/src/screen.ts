// What the page shows. Names come from the user's files: they are set as text, never as markup.

import type { Shown } from "./bench";
import type { Job, Parity } from "./contract";

const element = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const UNITS = ["B", "kB", "MB", "GB"];

interface Row {
  row: HTMLTableRowElement;
  state: HTMLElement;
  p50: HTMLElement;
  p90: HTMLElement;
  parity: HTMLElement;
}

export class Screen {
  private rows: Row[] = [];
  private names: string[] = [];

  say(text: string, kind: "" | "done" | "failed" = ""): void {
    element("status").textContent = text;
    element("status").className = kind;
    if (kind) {
      element("progress").hidden = true;
      element("hint").hidden = true;
    }
  }

  hint(text: string): void {
    element("hint").textContent = text;
  }

  device(text: string): void {
    element("device").textContent = text;
  }

  progress(done: number, total: number): void {
    const bar = element<HTMLProgressElement>("progress");
    bar.max = total;
    bar.value = Math.min(done, total);
  }

  /** A row for each case, to be filled in. */
  cases(job: Job): void {
    const many = new Set(job.cases.map(({ threads }) => threads)).size > 1;
    for (const { artifact, threads } of job.cases) {
      const { name, size_bytes } = job.artifacts[artifact]!;
      const label = many && threads !== null ? `${name}, ${threads} thread${threads === 1 ? "" : "s"}` : name;
      const row = tableRow("");
      const file = cell(row, "th", "file");
      file.scope = "row";
      const state = made("span", "state", "waiting");
      file.append(state, made("span", "name", label));
      cell(row, "td", "number", "Size").textContent = bytes(size_bytes);
      const [p50, p90] = [cell(row, "td", "number", "p50"), cell(row, "td", "number", "p90")];
      const parity = cell(row, "td", "", "Parity");
      this.rows.push({ row, state, p50, p90, parity });
      this.names.push(label);
      element("rows").append(row);
    }
    element("results").hidden = false;
  }

  name(index: number): string {
    return this.names[index]!;
  }

  show(index: number, { state, p50_ms, p90_ms, detail }: Partial<Shown>): void {
    const shown = this.rows[index]!;
    if (state) {
      shown.state.textContent = state;
      shown.state.className = state === "failed" ? "state bad" : "state";
    }
    if (p50_ms !== undefined) shown.p50.textContent = milliseconds(p50_ms);
    if (p90_ms !== undefined) shown.p90.textContent = milliseconds(p90_ms);
    if (detail) {
      const row = tableRow("detail");
      const text = cell(row, "td", "");
      text.colSpan = 5;
      text.textContent = detail;
      shown.row.after(row);
    }
  }

  parity({ case: index, verdict, max_rel_error, reason }: Parity): void {
    const { parity } = this.rows[index]!;
    const isGood = verdict === "pass";
    const share = max_rel_error === null ? "wrong" : `${(100 * max_rel_error).toPrecision(2)}% off`;
    parity.textContent = isGood ? "ok" : share;
    parity.className = isGood ? "good" : max_rel_error === null ? "bad" : "";
    parity.title = isGood ? "" : `${reason}; the computer judges it by what the file's own precision allows`;
  }
}

function made(tag: string, className: string, text: string): HTMLElement {
  const found = document.createElement(tag);
  found.className = className;
  found.textContent = text;
  return found;
}

function tableRow(className: string): HTMLTableRowElement {
  const found = document.createElement("tr");
  found.className = className;
  found.setAttribute("role", "row");
  return found;
}

/** A cell of a table; `label` stands above its figure where there is no room for a heading row. */
function cell(row: HTMLTableRowElement, tag: "th" | "td", className: string, label = ""): HTMLTableCellElement {
  const found = document.createElement(tag);
  found.className = className;
  found.setAttribute("role", tag === "th" ? "rowheader" : "cell");
  if (label) found.dataset.label = label;
  row.append(found);
  return found;
}

export function bytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 999.5 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit ? Number(value.toPrecision(3)) : value} ${UNITS[unit]}`;
}

export function milliseconds(value: number): string {
  return value >= 1 ? `${Number(value.toPrecision(3))} ms` : `${Number((value * 1000).toPrecision(3))} us`;
}
