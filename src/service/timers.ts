// Named timers: armed again they start anew, and all end with their owner.

export class Timers<Name extends string> {
  private readonly armed = new Map<Name, NodeJS.Timeout>();

  constructor(private readonly fire: (name: Name) => void) {}

  arm(name: Name, delayMs: number): void {
    this.disarm(name);
    const timer = setTimeout(() => {
      this.armed.delete(name);
      this.fire(name);
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
