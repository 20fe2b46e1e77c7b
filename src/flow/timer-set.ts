// Named timers: armed again they start anew, and all end with their owner. One that fires much too late tells that this
// process was stopped.

import { monotonicMs } from './clock.js';

export class Timers<Name extends string> {
  private readonly armed = new Map<Name, NodeJS.Timeout>();

  constructor(private readonly fire: (name: Name, lateMs: number) => void) {}

  arm(name: Name, delayMs: number): void {
    this.disarm(name);
    const dueMs = monotonicMs() + delayMs;
    const timer = setTimeout(() => {
      this.armed.delete(name);
      this.fire(name, Math.max(0, monotonicMs() - dueMs));
    }, delayMs);
    this.armed.set(name, timer);
  }

  disarm(name: Name): void {
    clearTimeout(this.armed.get(name));
    this.armed.delete(name);
  }

  end(): void {
    for (const timer of this.armed.values()) clearTimeout(timer);
    this.armed.clear();
  }
}
