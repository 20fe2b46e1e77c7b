// The guest's clock: milliseconds that every timer of the machine (PIT, APIC, TSC, ACPI) is read against.
//
//   running     real time plus an offset: a guest sees the time that a pause took, as on real hardware
//   frozen      one value, so that a state saved during a pause is of one instant
//   set         frozen at the value of a saved machine; when it runs, time goes on from there, whatever this process's
//               own clock says. Without that, absolute times in the saved timers would mean nothing here.

export class GuestClock {
  readonly #realNow: () => number;
  #offset = 0;
  #frozenAt: number | null = 0;
  #rebase = true;

  /** Frozen at 0 to begin with. `realNow` gives monotonic milliseconds. */
  constructor(realNow: () => number) {
    this.#realNow = realNow;
  }

  readonly now = (): number => this.#frozenAt ?? this.#realNow() + this.#offset;

  freeze(): void {
    this.#frozenAt = this.now();
  }

  set(value: number): void {
    this.#frozenAt = value;
    this.#rebase = true;
  }

  run(): void {
    if (this.#rebase) this.#offset = this.now() - this.#realNow();
    this.#rebase = false;
    this.#frozenAt = null;
  }
}
