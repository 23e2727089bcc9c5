// The page: take the token, fetch everything, run the bench, show and tell what it finds.

import { supportsFeature } from "@litertjs/core";
import { Bench, type Files, type Watcher } from "./bench";
import { line, type Sample, type Served } from "./contract";
import { facts } from "./device";
import { Declined, Link } from "./link";
import { unpacked } from "./samples";
import { Screen, bytes } from "./screen";

const KEEP_OPEN = "Keep this page open, the screen on and other apps closed until it is done.";
const UNREACHED =
  "The computer cannot be reached just now. Measuring goes on; what is found is kept here until it can.";

async function main(screen: Screen): Promise<void> {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname); // a copied address or a screenshot tells nobody the token
  const link = await Link.open(token);
  try {
    const { model, os, cores } = await facts();
    screen.device([model, os, cores && `${cores} cores`].filter(Boolean).join(" · "));
    const served = (await (await link.get("/job")).json()) as Served;
    link.keepAlive(served.heartbeat_s);
    link.onParity = (parity) => screen.parity(parity);
    screen.cases(served.job);
    const files = await fetched(served, link, screen);
    link.onState = (isReached) => screen.hint(isReached ? KEEP_OPEN : UNREACHED);
    await awake();
    await new Bench(served.job, files, link, watcher(served, screen)).run();
    link.close();
    screen.say("Done. The results are on the computer; this page can be closed.", "done");
  } catch (error) {
    link.leave(line(error));
    throw error;
  }
}

function watcher(served: Served, screen: Screen): Watcher {
  const isMany = served.job.cases.length > 1;
  return {
    onCase: (index, shown) => {
      screen.show(index, shown);
      if (shown.state === "loading" || shown.state === "warming up" || shown.state === "evaluating") {
        screen.say(`${screen.name(index)}: ${shown.state}`);
      }
    },
    onProgress: (done, total) => {
      screen.say(
        isMany && !served.job.sustained_s ? `Measuring ${served.job.cases.length} files in turns` : "Measuring",
      );
      screen.progress(done, total);
    },
  };
}

/** Everything that the job needs, so that nothing is loaded while something is measured. */
async function fetched({ job, files, packs }: Served, link: Link, screen: Screen): Promise<Files> {
  const models = new Map<string, Uint8Array>();
  const samples = new Map<string, Sample[]>();
  const runtimes = new Map<string, { script: string; wasm: Uint8Array }>();
  let [done, total] = [0, Object.values(files).reduce((sum, file) => sum + file.size_bytes, 0)];
  const onBytes = (count: number): void => {
    done += count;
    screen.say(`Fetching the files: ${bytes(done)}`);
    screen.progress(done, Math.max(total, done));
  };
  for (const [key, { url }] of Object.entries(files)) models.set(key, await link.bytes(url, onBytes));
  for (const [key, pack] of Object.entries(packs)) {
    samples.set(key, unpacked(pack, (await link.bytes(pack.url, onBytes)).buffer));
  }
  const paths = new Map<string, string>();
  for (const { artifact, threads } of job.cases) {
    const { format } = job.artifacts[artifact]!;
    const path = await runtimePath(format, threads);
    paths.set(`${format} ${threads}`, path);
    if (!path || runtimes.has(path)) continue;
    runtimes.set(path, { script: new URL(path, location.href).href, wasm: await link.bytes(wasmOf(path), onBytes) });
  }
  return {
    model: ({ file }) => models.get(file)!,
    golden: ({ golden }) => (golden === null ? null : samples.get(golden)!),
    data: ({ data }) => (data === null ? null : samples.get(data)![0]!),
    runtime: (format, threads) => runtimes.get(paths.get(`${format} ${threads}`)!)!,
  };
}

const wasmOf = (path: string): string => `/${path.replace(/\.m?js$/, ".wasm")}`;

/** The script of a format's runtime: LiteRT.js has one for each set of a processor's features. */
async function runtimePath(format: string, threads: number | null): Promise<string> {
  if (format === "onnx") return "onnx/ort-wasm-simd-threaded.mjs";
  if (format !== "tflite") return "";
  if ((threads ?? 1) > 1 && crossOriginIsolated) return "tflite/litert_wasm_threaded_internal.js";
  return (await supportsFeature("relaxedSimd"))
    ? "tflite/litert_wasm_internal.js"
    : "tflite/litert_wasm_compat_internal.js";
}

/** Ask the browser to leave the screen on, where it can. */
async function awake(): Promise<void> {
  const request = (): Promise<unknown> => navigator.wakeLock.request("screen").catch(() => undefined);
  if (!("wakeLock" in navigator)) return;
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void request();
  });
  await request();
}

const screen = new Screen();
main(screen).catch((error: unknown) => {
  const isKnown = error instanceof Declined;
  screen.say(isKnown ? error.message : `The page failed: ${line(error)}`, "failed");
});
