// The way to the computer: one session for one token, files, and events in batches that a dropped link loses none of.

import type { Event, Parity } from "./contract";

const BATCH_CHARACTERS = 4_000_000;
const TELL_EVERY_MS = 1000;
const RETRIES_MS = [500, 1000, 2000, 4000, ...Array<number>(60).fill(5000)];

/** The computer answered, and said no. */
export class Declined extends Error {}

export class Link {
  onParity: (parity: Parity) => void = () => undefined;
  /** Whether the computer can be reached, as far as is known. */
  onState: (isReached: boolean) => void = () => undefined;
  private queue: Event[] = [];
  private number = 0;
  private toldAt = 0;
  private posting: Promise<void> = Promise.resolve();
  private heartbeat = 0;

  private constructor(private session: string) {}

  static async open(token: string): Promise<Link> {
    const answer = await fetch("/session", { method: "POST", headers: { "X-Pocketship-Token": token } });
    if (!answer.ok) throw new Declined(await answer.text());
    return new Link(((await answer.json()) as { session: string }).session);
  }

  async get(url: string): Promise<Response> {
    const answer = await this.persistent(url, { headers: this.headers() });
    if (!answer.ok) throw new Declined(await answer.text());
    return answer;
  }

  /** The bytes of a file; `onBytes` hears how many came. */
  async bytes(url: string, onBytes: (count: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array[] = [];
    const reader = (await this.get(url)).body!.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      onBytes(part.value.length);
    }
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((offset, part) => (whole.set(part, offset), offset + part.length), 0);
    return whole;
  }

  /** Keep an event to be told at the next `settle`. */
  tell(event: Event): void {
    this.queue.push(event);
  }

  /** Tell what is kept, where the last time is a second ago: call it between runs, never in one. */
  async settle(): Promise<void> {
    if (this.queue.length && performance.now() - this.toldAt > TELL_EVERY_MS) await this.flush();
  }

  flush(): Promise<void> {
    this.posting = this.posting.then(() => this.post());
    return this.posting;
  }

  /** Say something every so often, that the computer may know that the page is there. */
  keepAlive(everyS: number): void {
    this.heartbeat = window.setInterval(() => {
      if (performance.now() - this.toldAt > everyS * 1000) this.flush().catch(() => undefined);
    }, everyS * 500);
    window.addEventListener("pagehide", this.onHide);
  }

  close(): void {
    window.clearInterval(this.heartbeat);
    window.removeEventListener("pagehide", this.onHide);
  }

  /** Say that nothing more will come, and why. */
  leave(reason: string): void {
    this.close();
    const body = JSON.stringify({ reason });
    const headers = { ...this.headers(), "Content-Type": "application/json" };
    fetch("/leave", { method: "POST", headers, body, keepalive: true }).catch(() => undefined);
  }

  private onHide = (): void => this.leave("the page was closed or reloaded");

  private headers(): Record<string, string> {
    return { "X-Pocketship-Session": this.session };
  }

  private async post(): Promise<void> {
    do {
      const batch: string[] = [];
      let characters = 0;
      while (this.queue.length && (!batch.length || characters < BATCH_CHARACTERS)) {
        const text = JSON.stringify(this.queue.shift());
        batch.push(text);
        characters += text.length;
      }
      const answer = await this.persistent("/events", {
        method: "POST",
        headers: { ...this.headers(), "Content-Type": "application/json" },
        body: `{"number":${this.number},"events":[${batch.join(",")}]}`,
      });
      if (!answer.ok) throw new Declined(await answer.text());
      this.number += 1;
      this.toldAt = performance.now();
      for (const parity of ((await answer.json()) as { parity: Parity[] }).parity) this.onParity(parity);
    } while (this.queue.length);
  }

  /** fetch, again and again while the computer cannot be reached. */
  private async persistent(url: string, options: RequestInit): Promise<Response> {
    for (const wait of RETRIES_MS) {
      try {
        const answer = await fetch(url, options);
        this.onState(true);
        return answer;
      } catch {
        this.onState(false);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
    throw new Declined("The computer cannot be reached any more.");
  }
}
