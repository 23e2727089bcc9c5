// The page's side of a worker: ask for one thing, hear its events; a crash or a hang is an event too.

import { line, type Asked, type Said } from "./contract";

/** The worker failed and was ended; the event `failed` has been told. */
export class Lost extends Error {}

const WORKERS: Record<string, { url: string; type: WorkerType }> = {
  onnx: { url: "worker_onnx.js", type: "module" },
  tflite: { url: "worker_tflite.js", type: "classic" },
};

export const hasWorker = (format: string): boolean => format in WORKERS;

export class Lane {
  private worker: Worker;

  constructor(
    number: number,
    private asked: Asked,
    private timeoutS: number,
    private onEvent: (said: Said) => void,
  ) {
    const { url, type } = WORKERS[asked.format]!;
    this.worker = new Worker(`${url}?case=${number}`, { type });
  }

  /** Ask for something: the events it gave, once it is done. Rejects with Lost where the worker fails or hangs. */
  do(what: string, how: Record<string, number> = {}, hearing = this.onEvent): Promise<Said[]> {
    const events: Said[] = [];
    return new Promise((resolve, reject) => {
      let timer = 0;
      const lose = (cause: string, detail: string): void => {
        window.clearTimeout(timer);
        this.end();
        this.onEvent({ event: "failed", cause, detail });
        reject(new Lost(detail));
      };
      const wait = (): void => {
        window.clearTimeout(timer);
        const hung = `gave no answer within ${this.timeoutS} s and was ended`;
        timer = window.setTimeout(() => lose("timed-out", hung), this.timeoutS * 1000);
      };
      this.worker.onmessage = ({ data }: MessageEvent<Said>) => {
        if (data.event === "ready") {
          window.clearTimeout(timer);
          resolve(events);
        } else if (data.event === "failed") {
          lose(data.cause, data.detail);
        } else {
          wait();
          events.push(data);
          hearing(data);
        }
      };
      this.worker.onerror = (event) => {
        event.preventDefault();
        lose("crashed", line(event.message || "its worker could not be started"));
      };
      this.worker.onmessageerror = () => lose("crashed", "gave an answer that cannot be read");
      wait();
      this.worker.postMessage({ do: what, ...how, asked: what === "import" ? this.asked : undefined });
    });
  }

  end(): void {
    this.worker.terminate();
  }
}
